//! What is to be run: tasks with their files, all of them found and read before any work begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::documents::{self, Document, Set};
use crate::shots::{Sampler, Shots};
use crate::tasks::{TASKS, Task};
use crate::{Error, Result};

/// Where the files are: a folder, or files by name.
#[derive(Clone, Debug, Default)]
pub struct Data {
    folders: Vec<PathBuf>,
    files: BTreeMap<String, PathBuf>,
}

impl Data {
    /// From arguments: `DIR`, `TASK=FILE` or `TASK.train=FILE`.
    ///
    /// # Errors
    /// A folder that is none, a task that there is not.
    pub fn new(arguments: &[String]) -> Result<Self> {
        let mut data = Data::default();
        let wrong =
            |value: &String, reason: String| Error::Argument { name: "--data", value: value.clone(), reason };
        for argument in arguments {
            if Path::new(argument).is_dir() {
                data.folders.push(argument.into());
                continue;
            }
            let Some((name, file)) = argument.split_once('=') else {
                return Err(wrong(
                    argument,
                    "is no folder; give a folder, TASK=FILE or TASK.train=FILE".into(),
                ));
            };
            let base = name.strip_suffix(".train").unwrap_or(name);
            if !TASKS.iter().any(|task| task.data == base) {
                let names: Vec<&str> = TASKS.iter().map(|task| task.data).collect();
                return Err(wrong(argument, format!("names no set; there are {}", names[..10].join(", "))));
            }
            data.files.insert(name.into(), file.into());
        }
        Ok(data)
    }

    /// The file of a name (`boolq` or `boolq.train`), or the places where it is not.
    fn find(&self, name: &str, others: &[String]) -> Result<PathBuf, String> {
        if let Some(file) = self.files.get(name) {
            return if file.is_file() { Ok(file.clone()) } else { Err(file.display().to_string()) };
        }
        let names: Vec<String> = std::iter::once(name)
            .chain(others.iter().map(String::as_str))
            .map(|name| format!("{name}.jsonl"))
            .collect();
        let places = self.folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        let mut found = places.filter(|place| place.is_file());
        found.next().ok_or_else(|| {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            let folders = if folders.is_empty() { "no folder given".into() } else { folders.join(", ") };
            format!("{} in {folders}", names.join(" or "))
        })
    }

    fn evaluated(&self, task: &Task) -> Result<PathBuf, String> {
        let mut others =
            vec![format!("{}.{}", task.data, task.split), format!("{}_{}", task.data, task.split)];
        others.extend(task.also.map(String::from));
        self.find(task.data, &others)
    }

    fn training(&self, task: &Task) -> Result<PathBuf, String> {
        self.find(&format!("{}.train", task.data), &[format!("{}_train", task.data)])
    }
}

/// A task with a number of examples.
#[derive(Clone, Debug)]
pub struct Job {
    /// The task.
    pub task: &'static Task,
    /// Examples a document.
    pub shots: usize,
    /// How they were asked for.
    pub asked: Shots,
    /// The evaluated file.
    pub set: Arc<Set>,
    /// Documents that are evaluated, from the first on.
    pub documents: usize,
    /// The training file, where there are examples.
    pub pool: Option<Arc<Set>>,
}

impl Job {
    /// The documents that are evaluated.
    #[must_use]
    pub fn evaluated(&self) -> &[Document] {
        &self.set.documents[..self.documents]
    }

    /// About how many bytes its requests have: what progress is counted in.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let requests = self.evaluated().iter().flat_map(|document| document.requests(""));
        let (count, bytes) = requests.fold((0u64, 0u64), |(count, bytes), request| {
            (count + 1, bytes + (request.context.len() + request.continuation.len()) as u64)
        });
        let example = self.pool.as_ref().map_or(0, |pool| {
            pool.documents.iter().map(|document| document.example.len()).sum::<usize>() / pool.documents.len()
        });
        bytes + count * (self.shots * example) as u64
    }
}

/// All jobs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order asked for: the shots of a task one after the other.
    pub jobs: Vec<Job>,
    /// The first so many documents of each task.
    pub limit: Option<usize>,
    /// Seed of the examples.
    pub seed: u32,
}

impl Plan {
    /// Finds all files, then reads them, then sees that there are enough examples.
    ///
    /// # Errors
    /// Files that are not there, all in one error; a line that cannot be read; too few examples.
    pub fn new(
        tasks: &[&'static Task],
        shots: &[Shots],
        data: &Data,
        limit: Option<usize>,
        seed: u32,
    ) -> Result<Self> {
        let mut missing = Vec::new();
        let mut files = Vec::new();
        let mut asked: Vec<(&'static Task, Shots)> = Vec::new();
        for task in tasks {
            for one in shots {
                if !asked.iter().any(|(name, other)| name.name == task.name && other.of(task) == one.of(task))
                {
                    asked.push((task, *one));
                }
            }
            let training = shots.iter().any(|one| one.of(task) > 0).then(|| data.training(task));
            let evaluated =
                data.evaluated(task).map_err(|place| missing.push((task.name.to_owned(), place))).ok();
            let training = training.and_then(|found| {
                found.map_err(|place| missing.push((format!("{} (examples)", task.name), place))).ok()
            });
            files.push((evaluated, training));
        }
        if !missing.is_empty() {
            return Err(Error::MissingFiles { files: missing });
        }
        let mut jobs = Vec::new();
        for (task, (evaluated, training)) in tasks.iter().zip(files) {
            let Some(evaluated) = evaluated else { continue };
            let set = Arc::new(documents::read(task, &evaluated)?);
            let pool = training.map(|path| documents::read(task, &path)).transpose()?.map(Arc::new);
            for (_, asked) in asked.iter().filter(|(other, _)| other.name == task.name) {
                let shots = asked.of(task);
                let pool = pool.clone().filter(|_| shots > 0);
                if let Some(pool) = &pool {
                    Sampler::new(task, pool, shots, seed)?;
                }
                let documents = set.documents.len().min(limit.unwrap_or(usize::MAX));
                jobs.push(Job { task, shots, asked: *asked, set: set.clone(), documents, pool });
            }
        }
        Ok(Self { jobs, limit, seed })
    }
}
