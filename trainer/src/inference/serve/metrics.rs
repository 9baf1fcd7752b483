//! What Prometheus reads at `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start, and how busy the model is.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers by status code.
    requests: Mutex<BTreeMap<u16, u64>>,
    /// Tokens of prompts, and new ones.
    pub prompt_tokens: AtomicU64,
    /// Tokens that were written.
    pub new_tokens: AtomicU64,
    /// Requests that ended because the client was gone.
    pub abandoned: AtomicU64,
    /// Steps of the model.
    pub steps: AtomicU64,
    /// Sequences that the model works on.
    pub active: AtomicU64,
    /// Sequences that wait.
    pub waiting: AtomicU64,
    /// Microseconds from request to answer, summed, and from request to first token with their number.
    answer_micros: AtomicU64,
    first_token_micros: AtomicU64,
    first_tokens: AtomicU64,
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, status: u16, after: Duration) {
        if let Ok(mut requests) = self.requests.lock() {
            *requests.entry(status).or_default() += 1;
        }
        self.answer_micros.fetch_add(after.as_micros() as u64, Ordering::Relaxed);
    }

    /// A request got its first token.
    pub fn first_token(&self, after: Duration) {
        self.first_token_micros.fetch_add(after.as_micros() as u64, Ordering::Relaxed);
        self.first_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// In Prometheus's text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let seconds = |micros: &AtomicU64| of(micros) as f64 / 1e6;
        let requests = self.requests.lock().map(|requests| requests.clone()).unwrap_or_default();
        let mut head = |name: &str, kind: &str, help: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        };
        head("mtnlg_requests_total", "counter", "Completions answered, by status code.");
        let mut lines: Vec<String> =
            requests.iter().map(|(code, n)| format!("mtnlg_requests_total{{code=\"{code}\"}} {n}")).collect();
        out.push_str(&lines.drain(..).map(|line| line + "\n").collect::<String>());
        for (name, kind, help, value) in [
            ("mtnlg_prompt_tokens_total", "counter", "Tokens of prompts.", of(&self.prompt_tokens) as f64),
            ("mtnlg_new_tokens_total", "counter", "Tokens written.", of(&self.new_tokens) as f64),
            (
                "mtnlg_abandoned_total",
                "counter",
                "Requests whose client went away.",
                of(&self.abandoned) as f64,
            ),
            ("mtnlg_steps_total", "counter", "Steps of the model.", of(&self.steps) as f64),
            ("mtnlg_active_sequences", "gauge", "Sequences in the model.", of(&self.active) as f64),
            ("mtnlg_waiting_sequences", "gauge", "Sequences that wait.", of(&self.waiting) as f64),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let answered: u64 = requests.values().sum();
        for (name, help, sum, count) in [
            ("mtnlg_request_seconds", "From request to answer.", seconds(&self.answer_micros), answered),
            (
                "mtnlg_first_token_seconds",
                "From request to first token.",
                seconds(&self.first_token_micros),
                of(&self.first_tokens),
            ),
        ] {
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} summary\n{name}_sum {sum}\n{name}_count {count}"
            );
        }
        out
    }
}
