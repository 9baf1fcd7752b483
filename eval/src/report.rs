//! Results: what was run, what came of it, and what is published for it. As text, JSON and a page.

pub mod html;
pub mod text;

use serde::{Deserialize, Serialize};

use crate::journal::Key;
use crate::metrics::{Metric, headline};
use crate::plan::{Job, Plan};
use crate::run::Requests;
use crate::shots::Shots;
use crate::tasks::{TASKS, Task};

/// What is evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The model in words.
    pub model: String,
    /// The checkpoint as the user gave it.
    pub checkpoint: String,
    /// Where it ran: backend, type, layout.
    pub backend: String,
    /// What the answers are a function of, beside the requests: the checkpoint's hash, tokenizer, backend, type. Journals are kept by it.
    pub key: String,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was evaluated.
    pub subject: Subject,
    /// The first so many documents of each task; null for all.
    pub limit: Option<usize>,
    /// Seed of the examples.
    pub seed: u32,
    /// In the order run.
    pub results: Vec<TaskResult>,
}

/// A task with a number of examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task.
    pub task: String,
    /// Its name in the paper.
    pub title: String,
    /// Where its prompt comes from.
    pub origin: String,
    /// Examples a document.
    pub shots: usize,
    /// As asked for: a number, or few.
    pub asked: String,
    /// Documents that were evaluated.
    pub documents: usize,
    /// Documents that the file has.
    pub documents_in_file: usize,
    /// Requests.
    pub requests: usize,
    /// BLAKE3 of the requests.
    pub requests_hash: String,
    /// The evaluated file.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub file_hash: String,
    /// The file of the examples.
    pub examples_file: Option<String>,
    /// BLAKE3 of its bytes.
    pub examples_file_hash: Option<String>,
    /// BLAKE3 of the examples of each document, in their order: `doc_id: index index …`, a line each. `--log-samples` has the indices themselves.
    pub examples_order_hash: Option<String>,
    /// Documents that have fewer examples than were asked for, because more do not fit.
    pub shortened: usize,
    /// Requests that lost their beginning, because they do not fit without examples either; of a continuation that is longer than the model's sequence its
    /// last tokens are scored.
    pub cut: usize,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The metric that the published ones stand beside.
    pub headline: String,
    /// Published accuracy in per cent, where there is one with so many examples.
    pub published: Option<PublishedRow>,
    /// Wall clock.
    pub seconds: f64,
}

/// Published accuracies in per cent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// MT-NLG 530B.
    pub mt_nlg: f64,
    /// GPT-3 175B.
    pub gpt3: Option<f64>,
}

impl PublishedRow {
    /// Those of a task with so many examples, where there are any.
    #[must_use]
    pub fn of(task: &Task, shots: usize) -> Option<Self> {
        let setting = match shots {
            0 => 0,
            1 => 1,
            shots if shots == task.few => 2,
            _ => return None,
        };
        Some(Self {
            mt_nlg: task.published.mt_nlg[setting],
            gpt3: task.published.gpt3.map(|accuracies| accuracies[setting]),
        })
    }
}

impl TaskResult {
    pub(crate) fn new(job: &Job, built: &Requests, key: &Key, metrics: Vec<Metric>, seconds: f64) -> Self {
        let task = job.task;
        let order: String = built
            .examples
            .iter()
            .enumerate()
            .map(|(document, examples)| {
                let indices: Vec<String> = examples.iter().map(usize::to_string).collect();
                format!("{document}: {}\n", indices.join(" "))
            })
            .collect();
        let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
        Self {
            task: task.name.into(),
            title: task.title.into(),
            origin: task.origin.into(),
            shots: job.shots,
            asked: job.asked.to_string(),
            documents: job.documents,
            documents_in_file: job.set.documents.len(),
            requests: key.requests,
            requests_hash: key.hash.clone(),
            file: job.set.path.display().to_string(),
            file_hash: job.set.hash.clone(),
            examples_file: job.pool.as_ref().map(|pool| pool.path.display().to_string()),
            examples_file_hash: job.pool.as_ref().map(|pool| pool.hash.clone()),
            examples_order_hash: job.pool.as_ref().map(|_| hash(&order)),
            shortened: built.shortened,
            cut: built.cut,
            metrics,
            headline: headline(task.measure).into(),
            published: PublishedRow::of(task, job.shots),
            seconds,
        }
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan, subject: &Subject, results: Vec<TaskResult>) -> Self {
        Self { subject: subject.clone(), limit: plan.limit, seed: plan.seed, results }
    }

    /// What was run, in one line: model, backend, shots, limit, and how many requests were cut.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut shots: Vec<&str> = Vec::new();
        for result in &self.results {
            if !shots.contains(&result.asked.as_str()) {
                shots.push(&result.asked);
            }
        }
        let limit = match self.limit {
            Some(limit) => format!("only the first {limit} documents of each task"),
            None => "all documents".into(),
        };
        let Subject { model, checkpoint, backend, .. } = &self.subject;
        let cut = match self.results.iter().map(|result| result.cut).sum::<usize>() {
            0 => String::new(),
            1 => "; 1 request lost its beginning".into(),
            cut => format!("; {cut} requests lost their beginning"),
        };
        format!("{model} ({checkpoint}) on {backend}; shots {}; {limit}{cut}", shots.join(", "))
    }
}

/// The table that `--formats` prints.
#[must_use]
pub fn formats() -> String {
    let mut page = String::from(
        "A task reads JSON lines in --data DIR: NAME.jsonl, or as NAME_SPLIT.jsonl, and for shots NAME.train.jsonl.\n\
         --data NAME=FILE and --data NAME.train=FILE name a file of their own.\n\
         In prompts | is where the context ends and the continuation begins. Groups: all (without mtnlg_…), mtnlg.\n",
    );
    for task in TASKS {
        let few = Shots::Few.of(task);
        page += &format!("\n{} ({})\n", task.name, task.title);
        page += &format!("  file     {}.jsonl or {0}_{}.jsonl", task.data, task.split);
        if let Some(also) = task.also {
            page += &format!(" or {also}.jsonl");
        }
        page += &format!("; for shots {}.train.jsonl\n  fields   {}\n", task.data, task.fields);
        page += &format!("  prompt   {}\n  from     {}\n", task.prompt, task.origin);
        page += &format!("  metric   {}; few is {few} shots\n", text::measures(task));
    }
    page
}
