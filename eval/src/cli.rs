//! `mtnlg eval`: its arguments, and the run over whatever opens a checkpoint.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::metrics::BOOTSTRAPS;
use crate::plan::{Data, Plan};
use crate::progress::Progress;
use crate::report::{self, Report, Subject};
use crate::run::{Options, evaluate};
use crate::samples::{Samples, write};
use crate::scorer::Scorer;
use crate::shots::{SEED, Shots};
use crate::tasks::by_names;
use crate::{Error, Result};

/// `mtnlg eval`, without what says where the model runs.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// A run, or one of its checkpoints
    #[arg(long, value_name = "CHECKPOINT", required_unless_present = "formats")]
    pub checkpoint: Option<PathBuf>,
    /// Tasks, separated by commas: all, mtnlg (its own variants), or names as --formats lists them
    #[arg(long, value_name = "TASKS", default_value = "all")]
    pub tasks: String,
    /// Examples before each question: numbers, or few for as many as MT-NLG had
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub shots: Vec<Shots>,
    /// Folder of the tasks' files, or the file of one: DIR, TASK=FILE or TASK.train=FILE; may be given many times
    #[arg(long, value_name = "DIR", required_unless_present = "formats")]
    pub data: Vec<String>,
    /// Only the first documents of each task
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Seed of the draw of examples
    #[arg(long, value_name = "N", default_value_t = SEED)]
    pub seed: u32,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as a page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write each request and its answer, a JSON line each
    #[arg(long, value_name = "FILE")]
    pub log_samples: Option<PathBuf>,
    /// Folder of the journals, by which an interrupted run goes on [default: eval in the run's directory]
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Bootstraps for the standard error of a perplexity
    #[arg(long, value_name = "N", default_value_t = BOOTSTRAPS)]
    pub bootstraps: usize,
    /// Say what each task reads and asks, and do nothing
    #[arg(long)]
    pub formats: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "give a whole number from 1".into())
}

/// A checkpoint that was opened.
#[derive(Debug)]
pub struct Opened<S> {
    /// What scores.
    pub scorer: S,
    /// What it is called.
    pub subject: Subject,
    /// Where journals go unless told.
    pub journal: PathBuf,
}

impl EvalArgs {
    /// Finds and reads all files; nothing else is done before.
    ///
    /// # Errors
    /// As [`Data::new`], [`by_names`] and [`Plan::new`].
    pub fn plan(&self) -> Result<Plan> {
        let tasks = by_names(&self.tasks)?;
        Plan::new(&tasks, &self.shots, &Data::new(&self.data)?, self.limit, self.seed)
    }

    /// What the command prints: the formats, or a report that it also writes where it was told.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan), of places that cannot be written (before any work), of `open`, of the scorer.
    pub fn run<S: Scorer>(&self, open: impl FnOnce(&Path) -> Result<Opened<S>>) -> Result<String> {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| !self.formats) else {
            return Ok(report::formats());
        };
        let plan = self.plan()?;
        for file in [&self.json, &self.html].into_iter().flatten() {
            writable(file)?;
        }
        let mut samples = self.log_samples.as_deref().map(Samples::create).transpose()?;
        let mut opened = open(checkpoint)?;
        let options = Options {
            journal: Some(self.journal.as_deref().unwrap_or(&opened.journal)),
            bootstraps: self.bootstraps,
            samples: samples.as_mut(),
            progress: Progress::new(),
        };
        let report = evaluate(&plan, &mut opened.scorer, &opened.subject, options)?;
        if let Some(samples) = samples {
            samples.finish()?;
        }
        if let Some(file) = &self.json {
            write(file, &json(&report, file)?)?;
        }
        if let Some(file) = &self.html {
            write(file, &report::html::page(&report))?;
        }
        Ok(report::text::report(&report))
    }
}

fn json(report: &Report, file: &Path) -> Result<String> {
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n").map_err(|error| Error::io("write", file)(error.into()))
}

/// Sees that a file can be written when the work is done.
fn writable(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if file.is_dir() {
        return Err(Error::io("write", file)(std::io::ErrorKind::IsADirectory.into()));
    }
    tempfile::NamedTempFile::new_in(folder).map(drop).map_err(Error::io("write into", folder))
}
