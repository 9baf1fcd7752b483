//! `mtnlg train`: from the configuration to the report.
//!
//! [`train`] prepares the text, opens the device, runs a session on all ranks, and writes what the run leaves: `config.toml`, `metrics.jsonl`,
//! checkpoints, `summary.json`, `report.html`. A run directory is made only once everything that can be refused has been checked.

mod evaluation;
mod samples;
mod session;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backend::Backend;
use backend_wgpu::Kernels;

use crate::checkpoint::{self, Meta, Reader};
use crate::config::{Mode, RunConfig};
use crate::device::{self, Device};
use crate::launch::{Job, Process, World, launch};
use crate::metrics::{self, MetricsLog, StepMetrics, Summary};
use crate::progress::{Progress, duration};
use crate::report::{Report, Sample};
use crate::timeline::{self, Recorder};
use crate::{Error, Result};
use evaluation::{Evaluation, Files};
use session::{Ended, Observer, Session};
use text::Text;
pub(crate) use text::cache_dir;

pub use session::rank_config;
pub use text::TOKENIZER_FILE;

/// The name of the configuration in a run directory.
pub const CONFIG_FILE: &str = "config.toml";
/// The name of the report in a run directory.
pub const REPORT_FILE: &str = "report.html";

/// Set by Ctrl-C and SIGTERM, read by the ranks at the beginning of each step.
static STOP: AtomicBool = AtomicBool::new(false);

/// Trains as configured; with `resume` the run in `run.dir` goes on from its newest good checkpoint. Returns the summary; `None` in a process that is not
/// the first.
///
/// # Errors
/// The user's mistakes, and whatever stops the ranks.
pub fn train(mut config: RunConfig, resume: bool) -> Result<Option<Summary>> {
    let process = Process::join(&identity(&config, resume))?;
    let quiet = process.as_ref().is_some_and(|process| process.rank() > 0);
    let mut say = |text: &str| {
        if !quiet {
            say(text);
        }
    };
    if let Some(process) = &process {
        check_world(&config, process)?;
    }
    let (device, why) = device::choose(config.run.backend)?;
    let device = device.with_kernels(config.kernels());
    say(&format!("backend: {why}"));
    let reader = match resume {
        true => Some(newest(&config, &mut say)?),
        false => {
            config.run.dir = fresh(&config, process.is_some())?;
            None
        }
    };
    let files = Files::read(&config)?;
    // One process prepares what the others then read.
    let text = match &process {
        None => Text::open(&config, &mut say)?,
        Some(process) => process.in_turn(|| Text::open(&config, &mut say))?,
    };
    say(&text.describe());
    let evaluation = files.map(|files| Evaluation::new(files, &config, &text.tokenizer)).transpose()?;
    if let Some(evaluation) = &evaluation {
        say(&evaluation.describe());
    }
    let meta = Meta {
        model: config.model.clone(),
        samples_consumed: 0,
        updates: 0,
        scheduled_tokens: 0,
        loss_scale: None,
        seed: config.train.seed,
        tokenizer: text.tokenizer_id(&config)?,
        data: text.identities(),
        layout: config.layout().to_string(),
    };
    if let Some(reader) = &reader {
        same_data(reader, &meta, &config)?;
    }
    let books = match quiet {
        true => None,
        false => {
            let books = Books::open(&config, reader.as_ref())?;
            text.keep_tokenizer(&config.run.dir)?;
            Some(Mutex::new(books))
        }
    };
    say(&describe(&config, process.is_some()));

    stop_on_signals()?;

    let begin = Instant::now();
    let nobody = Mutex::new(Nobody);
    let observer: &Mutex<dyn Observer> = match &books {
        Some(books) => books,
        None => &nobody,
    };
    let processes = process.is_some();
    let (reader, evaluation) = (reader.as_ref(), evaluation.as_ref());
    let job = Train { config: &config, text: &text, evaluation, reader, meta, observer, processes };
    let (ended, recorders) = match &process {
        None => launch(&device, config.layout().world_size(), job)?,
        Some(process) => process.launch(&device, config.numerics.mode == Mode::Invariant, job)?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    let file = match &process {
        Some(process) if quiet => format!("timeline-rank-{}.json", process.rank()),
        _ => timeline::TIMELINE_FILE.to_owned(),
    };
    timeline::write(&config.run.dir.join(file), &recorders)?;
    let Some(books) = books else { return Ok(None) };
    let books = books.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    books.progress.finish();
    finish(&config, &device, &text, &books, ended, (seconds, &recorders)).map(Some)
}

/// From now on Ctrl-C and SIGTERM ask for an end after the step, with a checkpoint.
fn stop_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        // A second one does not wait for the checkpoint.
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, with a checkpoint (Ctrl-C again: at once)");
    })
    .map_err(|error| Error::other(format!("cannot catch Ctrl-C: {error}")))?;
    // What a scheduler sends before it takes the machine away, often more than once.
    #[cfg(unix)]
    {
        let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM])
            .map_err(|error| Error::other(format!("cannot catch SIGTERM: {error}")))?;
        std::thread::spawn(move || {
            for _ in signals.forever() {
                if !STOP.swap(true, Ordering::Relaxed) {
                    eprintln!("SIGTERM: stopping after this step, with a checkpoint");
                }
            }
        });
    }
    Ok(())
}

/// What must be the same in all processes of a run.
fn identity(config: &RunConfig, resume: bool) -> String {
    format!("mtnlg {} resume={resume}\n{}", env!("CARGO_PKG_VERSION"), config.to_toml())
}

/// As many processes as ranks.
fn check_world(config: &RunConfig, process: &Process) -> Result<()> {
    let (layout, world) = (config.layout(), process.world_size());
    match layout.world_size() == world {
        true => Ok(()),
        false => Err(Error::user(format!(
            "{world} processes were started for a layout of {} ranks",
            layout.world_size()
        ))
        .value(layout.to_string())
        .remedy("start as many processes as parallel.tensor x parallel.pipeline x parallel.data")),
    }
}

/// What is left to do when the ranks are done: samples, summary, report.
fn finish(
    config: &RunConfig,
    device: &Device,
    text: &Text,
    books: &Books,
    ended: Ended,
    (seconds, recorders): (f64, &[Recorder]),
) -> Result<Summary> {
    let dir = &config.run.dir;
    let valid_loss = f64::from(ended.valid_loss);
    let targets = text.valid.len() * config.train.seq_len as u64;
    let summary = Summary {
        final_valid_loss: valid_loss,
        bits_per_byte: data::build::bits_per_byte(valid_loss * targets as f64, text.validation_bytes()?),
        steps: ended.step,
        tokens: config.tokens_after(ended.step),
        seconds: books.seconds_before + seconds,
        backend: ended.backend.clone(),
        layout: config.layout().to_string(),
    };
    let (checkpoint, _) = Reader::newest_good(dir)?;
    // A few sentences are not worth measuring kernels for.
    let device = device.clone().with_kernels(Kernels::Fixed);
    let samples = samples::samples(&device, config, text, checkpoint, dir)?;
    let report = Report { config, metrics: &books.lines, summary: &summary, samples: &samples };
    metrics::replace(&dir.join(REPORT_FILE), report.html_with(recorders).as_bytes())?;
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
    evaluation: Option<&'a Evaluation>,
    reader: Option<&'a Reader>,
    meta: Meta,
    observer: &'a Mutex<dyn Observer + 'a>,
    processes: bool,
}

impl Job for Train<'_> {
    type Output = (Ended, Vec<Recorder>);

    fn run<B: Backend>(self, world: World<B>) -> Result<(Ended, Vec<Recorder>)> {
        let session = Session {
            config: self.config,
            train: &self.text.train,
            valid: &self.text.valid,
            evaluation: self.evaluation,
            resume: self.reader,
            meta: self.meta,
            stop: &STOP,
            observer: self.observer,
            writer: Mutex::new(None),
            processes: self.processes,
            origin: Instant::now(),
            recorders: Mutex::default(),
        };
        let ended = world.run(|backend, communicator| session.rank(backend, communicator))?;
        let ended = ended.into_iter().next().ok_or_else(|| Error::other("a world without ranks"))?;
        let mut recorders = session.recorders.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        recorders.sort_by_key(Recorder::rank);
        Ok((ended, recorders))
    }
}

/// The observer of a process that keeps no books.
struct Nobody;

impl Observer for Nobody {
    fn step(&mut self, _metrics: &StepMetrics) -> Result<()> {
        Ok(())
    }

    fn asks(&mut self, _step: u64, _task: &str) {}

    fn answered(&mut self, _step: u64, _result: &str) {}

    fn saved(&mut self, _step: u64, _path: &Path) {}
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
    /// Makes the run directory, or cuts an old one back to where the run goes on.
    fn open(config: &RunConfig, reader: Option<&Reader>) -> Result<Self> {
        let dir = &config.run.dir;
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create the run directory", dir, &e))?;
        let (log, lines) = match reader {
            Some(reader) => {
                checkpoint::discard_after(dir, reader.step())?;
                MetricsLog::resume(dir, reader.step())?
            }
            None => (MetricsLog::create(dir)?, Vec::new()),
        };
        metrics::replace(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
        let tokens =
            |line: &StepMetrics| (config.tokens_after(line.step) - config.tokens_after(line.step - 1)) as f64;
        Ok(Self {
            log,
            progress: Progress::new(lines.len() as u64, config.train.steps),
            seconds_before: lines.iter().map(|line| tokens(line) / line.tokens_per_second).sum(),
            lines,
        })
    }
}

impl Observer for Books {
    fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.log.append(metrics)?;
        self.progress.step(metrics);
        self.lines.push(metrics.clone());
        Ok(())
    }

    fn asks(&mut self, step: u64, task: &str) {
        self.progress.doing(&format!("evaluating step {step}: {task}"));
    }

    fn answered(&mut self, step: u64, result: &str) {
        self.progress.say(&format!("evaluation of step {step}: {result}"));
    }

    fn saved(&mut self, step: u64, path: &Path) {
        self.progress.say(&format!("checkpoint of step {step}: {}", path.display()));
    }
}

/// The checkpoint to go on from, told to the user with those that were refused.
fn newest(config: &RunConfig, say: &mut impl FnMut(&str)) -> Result<Reader> {
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
    // An imported model has seen nothing of this program's data yet.
    if then.data.is_empty() && then.samples_consumed == 0 {
        return Ok(());
    }
    if then.data != now.data {
        return differs("data set", then.data.join(", "), now.data.join(", "));
    }
    if then.seed != now.seed {
        return differs("train.seed", then.seed.to_string(), now.seed.to_string());
    }
    let consumed = config.batch().samples_after(reader.step());
    if then.samples_consumed != consumed {
        let samples = |n: u64| format!("{n} samples in {} steps", reader.step());
        return differs(
            "train.global_batch or train.batch_ramp",
            samples(then.samples_consumed),
            samples(consumed),
        );
    }
    Ok(())
}

/// The directory of a new run. The default one gets a number where it is taken; one that the user named must be free.
///
/// # Errors
/// A named one that is taken.
pub fn fresh(config: &RunConfig, processes: bool) -> Result<PathBuf> {
    let dir = &config.run.dir;
    let taken = |dir: &Path| dir.join(CONFIG_FILE).exists();
    if !taken(dir) {
        return Ok(dir.clone());
    }
    if processes || *dir != crate::config::defaults::run_dir(&config.preset) {
        return Err(Error::user("there is a run in this directory already")
            .at(dir.display().to_string())
            .remedy(format!("go on with it by --resume {}, or name another --run-dir", dir.display())));
    }
    let numbered = |n: u32| dir.with_file_name(format!("{}-{n}", config.preset));
    Ok((2..).map(numbered).find(|dir| !taken(dir)).unwrap_or_else(|| dir.clone()))
}

/// One line: the model, the layout, the batch.
fn describe(config: &RunConfig, processes: bool) -> String {
    let train = &config.train;
    format!(
        "model: {} ({:.2} M parameters) on {} ranks ({}, {}{}), {} steps of {} x {} tokens; run: {}",
        config.preset,
        config.model.parameters() as f64 / 1e6,
        config.layout().world_size(),
        config.layout(),
        config.parallel.schedule,
        if processes { ", one process each" } else { "" },
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
