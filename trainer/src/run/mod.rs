//! `mtnlg train`: from the configuration to the report.
//!
//! [`train`] prepares the text, opens the device, runs a session on all ranks, and writes what the run leaves: `config.toml`, `metrics.jsonl`,
//! checkpoints, `summary.json`, `report.html`. A run directory is made only once everything that can be refused has been checked.

mod samples;
mod session;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backend::Backend;
use backend::local::{self, LocalCommunicator};

use crate::checkpoint::{self, Meta, Reader};
use crate::config::RunConfig;
use crate::device::{self, Device};
use crate::launch::{Job, launch};
use crate::metrics::{self, MetricsLog, StepMetrics, Summary};
use crate::progress::{Progress, duration};
use crate::report::{Report, Sample};
use crate::{Error, Result};
use session::{Ended, Observer, Session};
use text::Text;

pub use session::rank_config;

/// The name of the configuration in a run directory.
pub const CONFIG_FILE: &str = "config.toml";
/// The name of the report in a run directory.
pub const REPORT_FILE: &str = "report.html";

/// Set by Ctrl-C, read by the ranks at the beginning of each step.
static STOP: AtomicBool = AtomicBool::new(false);

/// Trains as configured; with `resume` the run in `run.dir` goes on from its newest good checkpoint. Returns the summary.
///
/// # Errors
/// The user's mistakes, and whatever stops the ranks.
pub fn train(mut config: RunConfig, resume: bool) -> Result<Summary> {
    let (device, why) = device::choose(config.run.backend)?;
    say(&format!("backend: {why}"));
    let reader = match resume {
        true => Some(newest(&config)?),
        false => {
            config.run.dir = fresh(&config)?;
            None
        }
    };
    let text = Text::open(&config, &mut say)?;
    say(&text.describe());
    let meta = Meta {
        model: config.model.clone(),
        samples_consumed: 0,
        seed: config.train.seed,
        tokenizer: text.tokenizer_id(&config)?,
        data: text.identities(),
        layout: config.layout().to_string(),
    };
    if let Some(reader) = &reader {
        same_data(reader, &meta, &config)?;
    }
    let (log, lines) = open_run(&config, reader.as_ref())?;
    say(&describe(&config));

    ctrlc::set_handler(|| {
        // A second one does not wait for the checkpoint.
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, with a checkpoint (Ctrl-C again: at once)");
    })
    .map_err(|error| Error::other(format!("cannot catch Ctrl-C: {error}")))?;

    let books = Mutex::new(Books::new(&config, log, lines));
    let begin = Instant::now();
    let job = Train { config: &config, text: &text, reader: reader.as_ref(), meta, books: &books };
    let ended = launch(&device, config.layout().world_size(), job)?;
    let seconds = begin.elapsed().as_secs_f64();
    let books = books.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    books.progress.finish();
    finish(&config, &device, &text, &books, ended, seconds)
}

/// What is left to do when the ranks are done: samples, summary, report.
fn finish(
    config: &RunConfig,
    device: &Device,
    text: &Text,
    books: &Books,
    ended: Ended,
    seconds: f64,
) -> Result<Summary> {
    let dir = &config.run.dir;
    let valid_loss = f64::from(ended.valid_loss);
    let targets = text.valid.len() * config.train.seq_len as u64;
    let summary = Summary {
        final_valid_loss: valid_loss,
        bits_per_byte: data::prepare::bits_per_byte(valid_loss * targets as f64, text.validation_bytes()?),
        steps: ended.step,
        tokens: ended.step * config.tokens_per_step(),
        seconds: books.seconds_before + seconds,
        backend: ended.backend.clone(),
        layout: config.layout().to_string(),
    };
    let (checkpoint, _) = Reader::newest_good(dir)?;
    let samples = launch(device, 1, samples::Continue { config, text, checkpoint: &checkpoint })?;
    let report = Report { config, metrics: &books.lines, summary: &summary, samples: &samples };
    metrics::replace(&dir.join(REPORT_FILE), report.html().as_bytes())?;
    summary.write(dir)?;

    samples.iter().for_each(print_sample);
    let stopped = ended.step < config.train.steps;
    say(&format!(
        "{} {} steps, {:.2} M tokens in {}; validation loss {:.4} nats a token, {:.4} bits a byte",
        if stopped { "stopped after" } else { "done:" },
        summary.steps,
        summary.tokens as f64 / 1e6,
        duration(std::time::Duration::from_secs_f64(summary.seconds)),
        summary.final_valid_loss,
        summary.bits_per_byte
    ));
    say(&format!("report: {}", dir.join(REPORT_FILE).display()));
    if stopped {
        say(&format!("to go on: mtnlg train --resume {}", dir.display()));
    }
    Ok(summary)
}

/// The training itself, on all ranks.
struct Train<'a> {
    config: &'a RunConfig,
    text: &'a Text,
    reader: Option<&'a Reader>,
    meta: Meta,
    books: &'a Mutex<Books>,
}

impl Job for Train<'_> {
    type Output = Ended;

    fn run<B: Backend>(self, ranks: Vec<LocalCommunicator<B>>) -> Result<Ended> {
        let session = Session {
            config: self.config,
            train: &self.text.train,
            valid: &self.text.valid,
            resume: self.reader,
            meta: self.meta,
            stop: &STOP,
            observer: self.books,
            writer: Mutex::new(None),
        };
        let ended = local::run(ranks, |communicator| session.rank(communicator))?;
        ended.into_iter().next().ok_or_else(|| Error::other("a world without ranks"))
    }
}

/// The books of a session: metrics to the file and to the terminal.
struct Books {
    log: MetricsLog,
    progress: Progress,
    /// Every step's line since the beginning of the run.
    lines: Vec<StepMetrics>,
    /// Seconds of training before this session.
    seconds_before: f64,
}

impl Books {
    fn new(config: &RunConfig, log: MetricsLog, lines: Vec<StepMetrics>) -> Self {
        let tokens = config.tokens_per_step() as f64;
        Self {
            log,
            progress: Progress::new(lines.len() as u64, config.train.steps),
            seconds_before: lines.iter().map(|line| tokens / line.tokens_per_second).sum(),
            lines,
        }
    }
}

impl Observer for Books {
    fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.log.append(metrics)?;
        self.progress.step(metrics);
        self.lines.push(*metrics);
        Ok(())
    }

    fn saved(&mut self, step: u64, path: &Path) {
        self.progress.say(&format!("checkpoint of step {step}: {}", path.display()));
    }
}

/// The checkpoint to go on from, told to the user with those that were refused.
fn newest(config: &RunConfig) -> Result<Reader> {
    let (reader, refused) = Reader::newest_good(&config.run.dir)?;
    refused.iter().for_each(|refused| say(&format!("note: refused {refused}")));
    reader.check_model(&config.model)?;
    say(&format!("going on after step {} of {}", reader.step(), reader.dir().display()));
    Ok(reader)
}

/// A run goes on with the data and the seed that it began with, or it would not be the same run.
fn same_data(reader: &Reader, now: &Meta, config: &RunConfig) -> Result<()> {
    let then = reader.meta();
    let differs = |what: &str, then: String, now: String| {
        Err(Error::user(format!("the run began with another {what}"))
            .at(reader.dir().display().to_string())
            .value(format!("then {then}; now {now}"))
            .remedy("resume with the run's own data and settings, or begin a new run with --run-dir"))
    };
    if then.tokenizer != now.tokenizer {
        return differs("tokenizer", then.tokenizer.name.clone(), now.tokenizer.name.clone());
    }
    if then.data != now.data {
        return differs("data set", then.data.join(", "), now.data.join(", "));
    }
    if then.seed != now.seed {
        return differs("train.seed", then.seed.to_string(), now.seed.to_string());
    }
    let consumed = reader.step() * config.train.global_batch as u64;
    if then.samples_consumed != consumed {
        let batch = then.samples_consumed / reader.step().max(1);
        return differs("train.global_batch", batch.to_string(), config.train.global_batch.to_string());
    }
    Ok(())
}

/// The directory of a new run. The default one gets a number where it is taken; one that the user named must be free.
fn fresh(config: &RunConfig) -> Result<PathBuf> {
    let dir = &config.run.dir;
    let taken = |dir: &Path| dir.join(CONFIG_FILE).exists();
    if !taken(dir) {
        return Ok(dir.clone());
    }
    if *dir != crate::config::defaults::run_dir(&config.preset) {
        return Err(Error::user("there is a run in this directory already")
            .at(dir.display().to_string())
            .remedy(format!("go on with it by --resume {}, or name another --run-dir", dir.display())));
    }
    let numbered = |n: u32| dir.with_file_name(format!("{}-{n}", config.preset));
    Ok((2..).map(numbered).find(|dir| !taken(dir)).unwrap_or_else(|| dir.clone()))
}

/// Makes the run directory, or cuts an old one back to where the run goes on.
fn open_run(config: &RunConfig, reader: Option<&Reader>) -> Result<(MetricsLog, Vec<StepMetrics>)> {
    let dir = &config.run.dir;
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create the run directory", dir, &e))?;
    let opened = match reader {
        Some(reader) => {
            checkpoint::discard_after(dir, reader.step())?;
            MetricsLog::resume(dir, reader.step())?
        }
        None => (MetricsLog::create(dir)?, Vec::new()),
    };
    metrics::replace(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
    Ok(opened)
}

/// One line: the model, the layout, the batch.
fn describe(config: &RunConfig) -> String {
    let train = &config.train;
    format!(
        "model: {} ({:.2} M parameters) on {} ranks ({}, {}), {} steps of {} x {} tokens; run: {}",
        config.preset,
        config.model.parameters() as f64 / 1e6,
        config.layout().world_size(),
        config.layout(),
        config.parallel.schedule,
        train.steps,
        train.global_batch,
        train.seq_len,
        config.run.dir.display()
    )
}

fn print_sample(sample: &Sample) {
    eprintln!("--- {}", sample.prompt.trim_end());
    eprintln!("+++ {}\n", sample.continuation.trim_end());
}

/// A line for the user. stdout is for what a program may read.
fn say(line: &str) {
    eprintln!("{line}");
}
