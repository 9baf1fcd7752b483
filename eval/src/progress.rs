//! What a user sees while it runs: a bar on a terminal, a plain line now and then in a pipe. Everything goes to stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::plan::Job;
use crate::report::{TaskResult, text};
use crate::scorer::Request;

/// In a pipe: a line at least every so many seconds.
const SECONDS: Duration = Duration::from_secs(10);

/// How far a run is, counted in bytes of requests: long ones take longer.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    doing: String,
    /// Bytes of all jobs, as estimated; of the jobs that are done; of this job, and of its requests.
    total: u64,
    before: u64,
    weight: u64,
    bytes: u64,
    done: u64,
    requests: (usize, usize),
    /// Bytes that were answered, not found in a journal, since the start.
    worked: f64,
    /// Bytes that a journal spared.
    spared: f64,
    started: Instant,
    said: Instant,
}

impl Progress {
    /// Shows a bar if stderr is a terminal, lines if not.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:24}] {percent}%").ok();
            style.map_or_else(
                || ProgressBar::new(0),
                |style| ProgressBar::new(0).with_style(style.progress_chars("=> ")),
            )
        });
        Self { bar, quiet: false, ..Self::quiet() }
    }

    /// Shows nothing.
    #[must_use]
    pub fn quiet() -> Self {
        let now = Instant::now();
        Self {
            bar: None,
            quiet: true,
            doing: String::new(),
            total: 0,
            before: 0,
            weight: 0,
            bytes: 0,
            done: 0,
            requests: (0, 0),
            worked: 0.0,
            spared: 0.0,
            started: now,
            said: now,
        }
    }

    pub(crate) fn begin(&mut self, total: u64) {
        self.total = total.max(1);
        self.started = Instant::now();
    }

    /// A job begins.
    pub(crate) fn job(&mut self, job: &Job, weight: u64, doing: &str) {
        self.before += self.weight;
        (self.weight, self.bytes, self.done, self.requests) = (weight, 1, 0, (0, 0));
        self.doing = format!("{} with {}: {doing}", job.task.name, text::shots(job.shots));
        self.show(true);
    }

    /// Its requests are there; `known` of them have an answer already.
    pub(crate) fn requests(
        &mut self,
        job: &Job,
        weight: u64,
        all: &[Request],
        known: usize,
        asked: &[Request],
    ) {
        self.bytes = all.iter().map(bytes).sum::<u64>().max(1);
        let open: u64 = asked.iter().map(bytes).sum();
        self.done = self.bytes.saturating_sub(open);
        self.spared += weight as f64 * self.done as f64 / self.bytes as f64;
        self.requests = (known, all.len());
        self.doing = format!("{} with {}", job.task.name, text::shots(job.shots));
        if known > 0 {
            self.say(&format!("{}: {known} of {} answers are in the journal", self.doing, all.len()));
        }
        self.show(true);
    }

    /// An answer has come.
    pub(crate) fn answered(&mut self, request: &Request) {
        self.done += bytes(request);
        self.requests.0 += 1;
        self.worked += self.weight as f64 * bytes(request) as f64 / self.bytes as f64;
        self.show(false);
    }

    /// A job is done.
    pub(crate) fn result(&mut self, result: &TaskResult) {
        self.say(&text::line(result));
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Share of the whole that is done.
    fn share(&self) -> f64 {
        let job = self.weight as f64 * (self.done as f64 / self.bytes.max(1) as f64).min(1.0);
        ((self.before as f64 + job) / self.total.max(1) as f64).min(1.0)
    }

    /// Time left at this session's mean pace, once there is one.
    fn left(&self) -> Option<Duration> {
        let open = (self.total as f64 - self.spared - self.worked).max(0.0);
        let pace = self.worked / self.started.elapsed().as_secs_f64();
        (self.worked > 0.0).then(|| Duration::try_from_secs_f64(open / pace).unwrap_or(Duration::MAX))
    }

    fn show(&mut self, other: bool) {
        if self.quiet || !(other || self.bar.is_some() || self.said.elapsed() >= SECONDS) {
            return;
        }
        let mut line = self.doing.clone();
        if self.requests.1 > 0 {
            line += &format!(", {} of {} requests", self.requests.0, self.requests.1);
        }
        if let Some(left) = self.left() {
            line += &format!(", {} left", duration(left));
        }
        let percent = 100.0 * self.share();
        match &self.bar {
            Some(bar) => {
                bar.set_length(10_000);
                bar.set_position((100.0 * percent) as u64);
                bar.set_message(line);
            }
            None => {
                eprintln!("{percent:.0}%  {line}");
                self.said = Instant::now();
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None if self.quiet => {}
            None => eprintln!("{line}"),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn bytes(request: &Request) -> u64 {
    (request.context.len() + request.continuation.len()) as u64
}

/// `75 s` as `1m15s`, `5400 s` as `1h30m`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_of_what_is_not_in_the_journal() {
        let mut progress = Progress::quiet();
        progress.begin(1000);
        assert_eq!(progress.left(), None);
        progress.started -= Duration::from_secs(10);
        // 600 of 1000 bytes were spared, 100 took ten seconds: 300 take thirty.
        (progress.spared, progress.worked) = (600.0, 100.0);
        let left = progress.left().unwrap().as_secs_f64();
        assert!((left - 30.0).abs() < 0.5, "{left}");
        (progress.before, progress.weight, progress.bytes, progress.done) = (500, 500, 50, 25);
        assert_eq!(progress.share(), 0.75);
        assert_eq!(
            [59, 75, 5400].map(|seconds| duration(Duration::from_secs(seconds))),
            ["59s", "1m15s", "1h30m"]
        );
    }
}
