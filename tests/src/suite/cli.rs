//! `conformance list | run | support | perf | diff`, for any registry of backends.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backend::DType;
use clap::{Args, Parser, Subcommand};

use super::perf::{self, Model, Sizes, Timing};
use super::report::{Record, Report};
use super::run::{Job, Program};
use super::support::{self, Row};
use super::{Selection, Tier, child, diff, groups, html};
use crate::Subject;

/// A subject of any backend.
pub trait AnySubject {
    /// See [`Subject::name`].
    fn name(&self) -> String;
    /// Group, place in it and id of the cases that are asked for.
    fn list(&self, selection: &Selection) -> Vec<(&'static str, usize, String)>;
    /// See [`child::run`].
    fn child(&self, group: &str, from: usize, selection: &Selection) -> u8;
    /// See [`Subject::expected_failures`].
    fn expected(&self) -> Vec<(String, String)>;
    /// See [`support::table`].
    ///
    /// # Errors
    /// As there.
    fn support(&self) -> backend::Result<(String, Vec<Row>)>;
    /// See [`perf::table`].
    ///
    /// # Errors
    /// As there.
    fn perf(&self, sizes: Sizes, dtype: DType, least: Duration) -> backend::Result<Vec<Timing>>;
}

impl<S: Subject> AnySubject for S {
    fn name(&self) -> String {
        Subject::name(self)
    }

    fn list(&self, selection: &Selection) -> Vec<(&'static str, usize, String)> {
        let mut list = Vec::new();
        for (group, cases) in groups::<S>() {
            let ids = cases().into_iter().enumerate().map(|(index, case)| (group, index, case.id()));
            list.extend(ids.filter(|(_, index, id)| selection.has(*index, id)));
        }
        list
    }

    fn child(&self, group: &str, from: usize, selection: &Selection) -> u8 {
        child::run(self, group, from, selection)
    }

    fn expected(&self) -> Vec<(String, String)> {
        let pair = |known: &crate::Expectation| (known.pattern.to_owned(), known.reason.to_owned());
        self.expected_failures().iter().map(pair).collect()
    }

    fn support(&self) -> backend::Result<(String, Vec<Row>)> {
        support::table(self)
    }

    fn perf(&self, sizes: Sizes, dtype: DType, least: Duration) -> backend::Result<Vec<Timing>> {
        perf::table(&*self.open()?, sizes, dtype, least)
    }
}

/// The backends that may be named.
pub type Registry = Vec<Box<dyn AnySubject>>;

/// `conformance`.
#[derive(Clone, Debug, Args)]
pub struct ConformanceArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Args)]
struct Which {
    /// Backend to test [default: the first of the registry]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only cases whose id holds this, `*` standing for anything: `matmul:*dt=bf16`
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// smoke (about one case of nine) or full
    #[arg(long, value_name = "TIER", default_value = "full")]
    tier: Tier,
}

impl Which {
    fn selection(&self) -> Selection {
        Selection { filter: self.filter.clone(), smoke: self.tier == Tier::Smoke }
    }
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// List the ids of the cases
    List(Which),
    /// Run cases; exit code 1 if one fails, or passes that is listed as failing
    Run(Box<RunArgs>),
    /// Say which operations and types a backend has
    Support {
        /// Backend to ask [default: the first of the registry]
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Time the operations at the shapes of a model
    Perf {
        /// Backend to time [default: the first of the registry]
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
        /// f32, bf16 or f16
        #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype)]
        dtype: DType,
        /// Whose shapes
        #[arg(long, value_name = "MODEL", value_enum, default_value = "laptop")]
        sizes: Model,
        /// How long each
        #[arg(long, value_name = "SECONDS", default_value_t = 0.3)]
        seconds: f64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare two JSON reports; exit code 1 if a case has become worse
    Diff {
        /// The report before
        before: PathBuf,
        /// The report after
        after: PathBuf,
    },
    /// The cases of one group, in this process; `run` starts it
    #[command(hide = true)]
    Child {
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        group: String,
        #[arg(long)]
        from: usize,
    },
}

#[derive(Clone, Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    which: Which,
    /// Seconds that a case may take before its process is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    timeout: f64,
    /// Failures that are known, over the backend's own: a text of the id, `#`, and the reason, a line each
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the matrix of operations and types as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn dtype(text: &str) -> Result<DType, String> {
    let all = [DType::F32, DType::Bf16, DType::F16];
    all.into_iter().find(|dtype| dtype.to_string() == text).ok_or_else(|| "give f32, bf16 or f16".into())
}

/// A user's mistake, exit code 2; or anything else, exit code 1.
enum Stop {
    User(String),
    Other(String),
    Failed,
}

/// The command line of a program that is this suite for one backend.
#[derive(Parser)]
#[command(
    name = "conformance",
    version,
    about = "Tests a backend: every operation against an fp64 reference, and the collectives"
)]
struct Alone {
    #[command(flatten)]
    args: ConformanceArgs,
}

/// The suite as a program, for one backend.
pub fn main<S: Subject>(subject: S) -> ExitCode {
    let Alone { args } = Alone::parse();
    args.run(&vec![Box::new(subject)], vec![])
}

impl ConformanceArgs {
    /// Does it, and prints; `prefix` is what stands before the arguments on the command line of this program.
    pub fn run(&self, registry: &Registry, prefix: Vec<String>) -> ExitCode {
        match self.answer(registry, prefix) {
            Ok(code) => code,
            Err(Stop::Failed) => ExitCode::from(1),
            Err(Stop::User(text)) => {
                eprintln!("error: {text}");
                ExitCode::from(2)
            }
            Err(Stop::Other(text)) => {
                eprintln!("error: {text}");
                ExitCode::from(1)
            }
        }
    }

    fn answer(&self, registry: &Registry, prefix: Vec<String>) -> Result<ExitCode, Stop> {
        match &self.what {
            What::List(which) => {
                let subject = named(registry, which.backend.as_deref())?;
                let ids: Vec<_> = subject.list(&which.selection()).into_iter().map(|(_, _, id)| id).collect();
                print(&format!("{}\n{} cases", ids.join("\n"), ids.len()));
            }
            What::Run(args) => return run(args, named(registry, args.which.backend.as_deref())?, prefix),
            What::Support { backend, json } => {
                let subject = named(registry, backend.as_deref())?;
                let (device, rows) = subject.support().map_err(device_error)?;
                print(&if *json {
                    to_json(&rows)?
                } else {
                    support::markdown(&subject.name(), &device, &rows)
                });
            }
            What::Perf { backend, dtype, sizes, seconds, json } => {
                let subject = named(registry, backend.as_deref())?;
                let least = Duration::try_from_secs_f64(*seconds).map_err(|_| {
                    Stop::User(format!("--seconds {seconds} is no time; give a number of at least 0"))
                })?;
                let rows = subject.perf(sizes.sizes(), *dtype, least).map_err(device_error)?;
                print(&if *json { to_json(&rows)? } else { timings(&rows) });
            }
            What::Diff { before, after } => {
                let (before, after) =
                    (diff::read(before).map_err(Stop::User)?, diff::read(after).map_err(Stop::User)?);
                let (text, worse) = diff::words(&before, &after);
                print(&text);
                if worse {
                    return Err(Stop::Failed);
                }
            }
            What::Child { which, group, from } => {
                let subject = named(registry, which.backend.as_deref())?;
                return Ok(ExitCode::from(subject.child(group, *from, &which.selection())));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn device_error(error: backend::Error) -> Stop {
    match error {
        backend::Error::NoDevice { .. } | backend::Error::Unsupported { .. } => Stop::User(error.to_string()),
        _ => Stop::Other(error.to_string()),
    }
}

fn named<'r>(registry: &'r Registry, name: Option<&str>) -> Result<&'r dyn AnySubject, Stop> {
    let names = || registry.iter().map(|subject| subject.name()).collect::<Vec<_>>().join(", ");
    let found = match name {
        None => registry.first(),
        Some(name) => registry.iter().find(|subject| subject.name() == name),
    };
    found.map(|subject| &**subject).ok_or_else(|| {
        Stop::User(format!("there is no backend {}; give one of: {}", name.unwrap_or_default(), names()))
    })
}

fn run(args: &RunArgs, subject: &dyn AnySubject, prefix: Vec<String>) -> Result<ExitCode, Stop> {
    let executable = std::env::current_exe()
        .map_err(|error| Stop::Other(format!("this program's file is not known: {error}")))?;
    let timeout = Duration::try_from_secs_f64(args.timeout).ok().filter(|timeout| !timeout.is_zero());
    let timeout = timeout
        .ok_or_else(|| Stop::User(format!("--timeout {} is no time; give seconds above 0", args.timeout)))?;
    let selection = args.which.selection();
    let cases = subject.list(&selection);
    if cases.is_empty() {
        return Err(Stop::User(format!(
            "no case has an id with {:?}; `list` prints them",
            args.which.filter
        )));
    }
    let mut expected = subject.expected();
    if let Some(path) = &args.expected {
        let all = subject.list(&Selection::default());
        expected.extend(expectations(path, &all)?);
    }
    // Before the work, not after it.
    for path in [&args.json, &args.markdown, &args.html].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() || !folder.is_dir() {
            return Err(Stop::User(format!(
                "cannot write {}: give a file in a folder that exists",
                path.display()
            )));
        }
    }
    let program = Program { executable, prefix };
    let total = cases.len();
    let job = Job { program: &program, backend: subject.name(), cases, selection, expected, timeout };
    let (terminal, mut ended) = (std::io::stderr().is_terminal(), 0);
    let report = job.run(|record| {
        ended += 1;
        progress(record, (ended, total), terminal);
    });
    let report = report.map_err(Stop::User)?;
    for (path, text) in [
        (&args.json, args.json.is_some().then(|| to_json(&report)).transpose()?),
        (&args.markdown, args.markdown.is_some().then(|| report.markdown())),
        (&args.html, args.html.is_some().then(|| html::page(&report))),
    ] {
        if let (Some(path), Some(text)) = (path, text) {
            std::fs::write(path, text)
                .map_err(|error| Stop::User(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    print(&summary(&report));
    if report.is_good() { Ok(ExitCode::SUCCESS) } else { Err(Stop::Failed) }
}

/// What is wrong at once; and on a terminal how far it is.
fn progress(record: &Record, (ended, total): (usize, usize), terminal: bool) {
    let mut err = std::io::stderr().lock();
    let clear = if terminal { "\r\x1b[K" } else { "" };
    if record.status.is_bad() {
        let reason = record.reason.as_deref().unwrap_or("");
        let _ = writeln!(err, "{clear}{}: {}\n  {reason}", record.status.name(), record.id);
    }
    if terminal {
        let _ = write!(err, "{clear}{ended}/{total} {}", record.group);
        if ended == total {
            let _ = write!(err, "{clear}");
        }
        let _ = err.flush();
    }
}

fn summary(report: &Report) -> String {
    let mut text = report.headline();
    let mut nearest: Vec<_> = report.cases.iter().filter(|case| case.ratio.is_some()).collect();
    nearest.sort_by(|a, b| b.ratio.partial_cmp(&a.ratio).unwrap_or(std::cmp::Ordering::Equal));
    if let Some(case) = nearest.first() {
        text += &format!("\nnearest to its limit: {}, {:.3} of it", case.id, case.ratio.unwrap_or(0.0));
    }
    for case in report.bad() {
        text += &format!("\n{}: {}", case.status.name(), case.id);
    }
    text + &format!("\n{:.1} s", report.seconds)
}

fn expectations(path: &Path, all: &[(&str, usize, String)]) -> Result<Vec<(String, String)>, Stop> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Stop::User(format!("cannot read {}: {error}", path.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| match line.split_once('#') {
            Some((pattern, reason)) if !pattern.trim().is_empty() && !reason.trim().is_empty() => {
                if !all.iter().any(|(_, _, id)| super::matches(pattern.trim(), id)) {
                    return Err(Stop::User(format!(
                        "{}:{}: no case has an id with {:?}; `list` prints them",
                        path.display(),
                        number + 1,
                        pattern.trim()
                    )));
                }
                Ok((pattern.trim().to_owned(), reason.trim().to_owned()))
            }
            _ => Err(Stop::User(format!(
                "{}:{}: {line:?} is no expectation; write a text of the id, `#`, and the reason",
                path.display(),
                number + 1
            ))),
        })
        .collect()
}

fn timings(rows: &[Timing]) -> String {
    let mut text = format!("{:<24}{:<36}{:>12}{:>12}{:>10}\n", "operation", "shape", "us", "GFLOP/s", "GB/s");
    for Timing { operation, shape, dtype, seconds, gflops, gbytes } in rows {
        let gflops = gflops.map_or(String::new(), |gflops| format!("{gflops:.1}"));
        let shape = format!("{shape},dt={dtype}");
        text += &format!("{operation:<24}{shape:<36}{:>12.1}{gflops:>12}{gbytes:>10.2}\n", 1e6 * seconds);
    }
    text
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Stop> {
    serde_json::to_string_pretty(value).map_err(|error| Stop::Other(format!("no JSON: {error}")))
}

/// Prints; a reader that has gone away is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
