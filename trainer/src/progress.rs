//! What a user sees while it trains: a bar on a terminal, a plain line now and then in a pipe. Everything goes to stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::metrics::StepMetrics;

/// The run's progress.
#[derive(Debug)]
pub struct Progress {
    shown: Shown,
    first: u64,
    steps: u64,
    started: Instant,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    /// When, and at which step, a line was last printed.
    Lines(Option<(Instant, u64)>),
}

/// In a pipe: a line at least every so many seconds, if the steps are that slow, else [`LINES`] over the run.
const SECONDS: Duration = Duration::from_secs(10);
/// In a pipe: about so many lines over a run.
const LINES: u64 = 50;

impl Progress {
    /// Shows a run of `steps` of which `done` are done, as a bar if stderr is a terminal.
    pub fn new(done: u64, steps: u64) -> Self {
        let shown = match std::io::stderr().is_terminal() {
            true => Shown::Bar(bar(done, steps)),
            false => Shown::Lines(None),
        };
        Self { shown, first: done, steps, started: Instant::now() }
    }

    /// Shows a step that is done.
    pub fn step(&mut self, metrics: &StepMetrics) {
        let left = self.left(metrics.step);
        let text = describe(metrics);
        let due = self.line_is_due(metrics);
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(format!("{text}  {} left", duration(left)));
            }
            Shown::Lines(last) => {
                if due {
                    *last = Some((Instant::now(), metrics.step));
                    eprintln!("step {}/{}  {text}  {} left", metrics.step, self.steps, duration(left));
                }
            }
        }
    }

    /// Shows what is done between two steps, where there is a bar.
    pub fn doing(&self, what: &str) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(what.to_owned());
            bar.tick();
        }
    }

    /// Prints a line of its own, above the bar.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Shown::Lines(_) => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// Time left at this session's mean pace.
    fn left(&self, step: u64) -> Duration {
        let done = step.saturating_sub(self.first).max(1);
        let left = self.steps.saturating_sub(step);
        self.started.elapsed().mul_f64(left as f64 / done as f64)
    }

    /// The first step, the last, each that validated, and now and then one between.
    fn line_is_due(&self, metrics: &StepMetrics) -> bool {
        let Shown::Lines(last) = &self.shown else { return false };
        let now_and_then = last.is_none_or(|(when, step)| {
            when.elapsed() >= SECONDS || metrics.step.saturating_sub(step) >= self.steps.div_ceil(LINES)
        });
        now_and_then || metrics.step == self.steps || metrics.valid_loss.is_some()
    }
}

fn bar(done: u64, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_position(done);
    let style = ProgressStyle::with_template("step {pos}/{len} [{bar:24}] {msg}")
        .expect("the template is a constant")
        .progress_chars("=> ");
    bar.set_style(style);
    bar
}

/// The numbers of a step, on one line.
fn describe(metrics: &StepMetrics) -> String {
    let mut text = format!(
        "loss {:.4}  lr {:.2e}  grad norm {:.3}  {:.0} tokens/s",
        metrics.loss, metrics.lr, metrics.grad_norm, metrics.tokens_per_second
    );
    if let Some(valid) = metrics.valid_loss {
        text.push_str(&format!("  validation {valid:.4}"));
    }
    text
}

/// `75 s` as `1m15s`, `5400 s` as `1h30m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64, valid_loss: Option<f64>) -> StepMetrics {
        StepMetrics {
            step,
            loss: 8.3178,
            lr: 5e-3,
            grad_norm: 1.25,
            tokens_per_second: 12_000.4,
            valid_loss,
            evaluation: vec![],
        }
    }

    fn lines(first: u64, steps: u64) -> Progress {
        Progress { shown: Shown::Lines(None), first, steps, started: Instant::now() }
    }

    #[test]
    fn a_pipe_gets_a_line_now_and_then() {
        let mut progress = lines(0, 1000);
        let mut shown = 0;
        for step in 1..=1000 {
            let metrics = at(step, (step == 7).then_some(5.0));
            shown += u64::from(progress.line_is_due(&metrics));
            if progress.line_is_due(&metrics) {
                progress.shown = Shown::Lines(Some((Instant::now(), step)));
            }
        }
        assert!((LINES..LINES + 4).contains(&shown), "{shown}");
    }

    #[test]
    fn time_left_counts_from_where_this_session_started() {
        let mut progress = lines(100, 300);
        progress.started = Instant::now() - Duration::from_secs(50);
        // 50 steps in 50 s: 150 more take 150 s.
        let left = progress.left(150).as_secs_f64();
        assert!((left - 150.0).abs() < 1.0, "{left}");
        assert_eq!(progress.left(300), Duration::ZERO);
    }

    #[test]
    fn texts() {
        assert_eq!(describe(&at(1, None)), "loss 8.3178  lr 5.00e-3  grad norm 1.250  12000 tokens/s");
        assert!(describe(&at(1, Some(4.5))).ends_with("validation 4.5000"));
        let shown = [0, 59, 75, 3599, 5400].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(shown, ["0s", "59s", "1m15s", "59m59s", "1h30m"]);
    }
}
