//! How far work on data is: a bar on a terminal, in a pipe a line for each thing that is done and now and then one between. Everything goes to stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use data::step::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// In a pipe: a line at least every so many seconds.
const SECONDS: Duration = Duration::from_secs(10);

/// The work's progress.
pub struct Work {
    bar: Option<ProgressBar>,
    doing: String,
    said: Instant,
}

impl Work {
    /// Shows a bar if stderr is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:24}] {percent}% {eta} left")
                .expect("the template is a constant")
                .progress_chars("=> ");
            ProgressBar::new(0).with_style(style)
        });
        Self { bar, doing: String::new(), said: Instant::now() }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: Progress) {
        let other = progress.doing != self.doing;
        let Progress { doing, done, total } = progress;
        match &self.bar {
            Some(bar) => {
                if other {
                    bar.reset();
                    bar.set_message(doing.clone());
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            None if other || self.said.elapsed() >= SECONDS => {
                let percent = 100.0 * done as f64 / total.max(1) as f64;
                eprintln!("{doing}: {percent:.0}%");
                self.said = Instant::now();
            }
            None => {}
        }
        self.doing = doing;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
