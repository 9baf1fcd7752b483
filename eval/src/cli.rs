//! `mtnlg eval`: its arguments, and the run over whatever scores.
//!
//! First all is read and checked ([`EvalArgs::prepare`]), then a checkpoint is opened, which is the caller's affair, then it is asked ([`Prepared::run`]).

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

/// `mtnlg eval`, without what says which model, and where it runs.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// Tasks, separated by commas: all, mtnlg (its own variants), or names as --formats lists them
    #[arg(long, value_name = "TASKS", default_value = "all")]
    pub tasks: String,
    /// Examples before each question: numbers, or few for as many as MT-NLG had
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub shots: Vec<Shots>,
    /// Folder of the tasks' files, or the file of one: DIR, TASK=FILE or TASK.train=FILE; may be given many times
    #[arg(long, value_name = "DIR", required = true)]
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
    #[arg(long, exclusive = true)]
    pub formats: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "give a whole number from 1".into())
}

/// A run that can begin.
#[derive(Debug)]
pub struct Prepared<'a> {
    args: &'a EvalArgs,
    /// What is to be run.
    pub plan: Plan,
    samples: Option<Samples>,
}

impl EvalArgs {
    /// Finds and reads all files, and sees that the report can be written; nothing else is done before.
    ///
    /// # Errors
    /// As [`Data::new`], [`by_names`] and [`Plan::new`]; places that cannot be written.
    pub fn prepare(&self) -> Result<Prepared<'_>> {
        let tasks = by_names(&self.tasks)?;
        let plan = Plan::new(&tasks, &self.shots, &Data::new(&self.data)?, self.limit, self.seed)?;
        for file in [&self.json, &self.html].into_iter().flatten() {
            writable(file)?;
        }
        let samples = self.log_samples.as_deref().map(Samples::create).transpose()?;
        Ok(Prepared { args: self, plan, samples })
    }
}

impl Prepared<'_> {
    /// Asks the scorer, and gives the report, which is also written where the arguments say. Journals are in `journal` unless the arguments say otherwise.
    ///
    /// # Errors
    /// The scorer's; files that cannot be written.
    pub fn run<S: Scorer>(self, scorer: &mut S, subject: &Subject, journal: &Path) -> Result<Report> {
        let Self { args, plan, mut samples } = self;
        let options = Options {
            journal: Some(args.journal.as_deref().unwrap_or(journal)),
            bootstraps: args.bootstraps,
            samples: samples.as_mut(),
            progress: Progress::new(),
        };
        let report = evaluate(&plan, scorer, subject, options)?;
        if let Some(samples) = samples {
            samples.finish()?;
        }
        if let Some(file) = &args.json {
            write(file, &json(&report, file)?)?;
        }
        if let Some(file) = &args.html {
            write(file, &report::html::page(&report))?;
        }
        Ok(report)
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
