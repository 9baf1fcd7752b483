//! When each rank did what: spans recorded while it trains, written in Chrome's trace format, which Perfetto (<https://ui.perfetto.dev>) and
//! `chrome://tracing` open. One row a rank.
//!
//! A [`Recorder`] is one rank's. A span costs two readings of the clock and a push into memory that was there before; once it is full, further spans are
//! counted and dropped, so that a long run records its beginning and stays as quick as it was.
//!
//! ```
//! use std::time::Instant;
//! use trainer::timeline::{Args, Category, Recorder, trace};
//! let origin = Instant::now();
//! let rank = Recorder::new(0, "stage 0", origin, 1000);
//! let begin = Instant::now();
//! rank.span(Category::Forward, "forward", begin, Instant::now(), Args { microbatch: Some(3), ..Args::default() });
//! assert!(trace(&[rank]).contains("\"microbatch\":3"));
//! ```
//!
//! Spans of a rank lie beside or within each other, as calls do. What lies between two outermost spans of a rank is written as a `bubble`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::Result;
use crate::metrics::replace;

/// The file in a run directory.
pub const TIMELINE_FILE: &str = "timeline.json";
/// Microseconds between two spans that are no bubble: the time to take one instruction after another.
const GAP: f64 = 20.0;

/// What a rank is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// A unit's forward pass.
    Forward,
    /// A unit's backward pass, or the gradient of its input alone.
    Backward,
    /// The gradient of a unit's weights.
    Weight,
    /// Handing something to another stage.
    Send,
    /// Waiting for something from another stage.
    Receive,
    /// Something among the ranks of a group.
    Collective,
    /// Clipping and update.
    Optimizer,
}

impl Category {
    /// Every category, in the order of legends.
    pub const ALL: [Self; 7] = [
        Self::Forward,
        Self::Backward,
        Self::Weight,
        Self::Send,
        Self::Receive,
        Self::Collective,
        Self::Optimizer,
    ];

    /// The name in the trace and in style sheets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Weight => "weight",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Collective => "collective",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What is known of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The microbatch of the step.
    pub microbatch: Option<usize>,
    /// The stage's model chunk.
    pub chunk: Option<usize>,
    /// Bytes sent, received or reduced.
    pub bytes: Option<u64>,
}

/// A stretch of time of a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// What kind of work.
    pub category: Category,
    /// Which work.
    pub name: &'static str,
    /// Microseconds from the recorder's origin.
    pub start: f64,
    /// Likewise; at least `start`.
    pub end: f64,
    /// More about it.
    pub args: Args,
}

/// One rank's spans.
#[derive(Debug)]
pub struct Recorder {
    rank: usize,
    label: String,
    origin: Instant,
    capacity: usize,
    paused: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    spans: Vec<Span>,
    dropped: u64,
}

impl Recorder {
    /// A recorder of `rank` with room for `capacity` spans, whose row is labelled so. All ranks of a trace have the same `origin`.
    pub fn new(rank: usize, label: &str, origin: Instant, capacity: usize) -> Self {
        let kept = Mutex::new(Kept { spans: Vec::with_capacity(capacity), dropped: 0 });
        Self { rank, label: label.into(), origin, capacity, paused: AtomicBool::new(false), kept }
    }

    /// Leaves out what is done from now on, or takes it in again.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The row's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Records a span.
    pub fn span(&self, category: Category, name: &'static str, start: Instant, end: Instant, args: Args) {
        if self.paused.load(Ordering::Relaxed) {
            return;
        }
        let place = |time: Instant| time.saturating_duration_since(self.origin).as_secs_f64() * 1e6;
        let (start, end) = (place(start), place(end.max(start)));
        let mut kept = self.kept();
        if kept.spans.len() == self.capacity {
            kept.dropped += 1;
        } else {
            kept.spans.push(Span { category, name, start, end, args });
        }
    }

    /// The spans by their start, an outer one before those within it.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.kept().spans.clone();
        spans.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.end.total_cmp(&a.end)));
        spans
    }

    /// Spans that there was no room for.
    pub fn dropped(&self) -> u64 {
        self.kept().dropped
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A push cannot be left half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gaps between the outermost of `spans`, which are in order, as start and end.
pub fn bubbles(spans: &[Span]) -> Vec<(f64, f64)> {
    let mut gaps = Vec::new();
    let mut busy_until = spans.first().map_or(0.0, |span| span.start);
    for span in spans {
        if span.start - busy_until > GAP {
            gaps.push((busy_until, span.start));
        }
        busy_until = busy_until.max(span.end);
    }
    gaps
}

/// The trace of these ranks, as JSON.
pub fn trace(ranks: &[Recorder]) -> String {
    let mut events =
        vec![json!({ "name": "process_name", "ph": "M", "pid": 0, "args": { "name": "mtnlg" } })];
    for recorder in ranks {
        let tid = recorder.rank;
        let label = format!("rank {tid}: {}", recorder.label);
        let meta =
            |name: &str, args: Value| json!({ "name": name, "ph": "M", "pid": 0, "tid": tid, "args": args });
        events.push(meta("thread_name", json!({ "name": label })));
        events.push(meta("thread_sort_index", json!({ "sort_index": tid })));
        if recorder.dropped() > 0 {
            events.push(meta("spans_dropped", json!({ "count": recorder.dropped() })));
        }
        let spans = recorder.spans();
        events.extend(spans.iter().map(|span| {
            let Args { microbatch, chunk, bytes } = span.args;
            let given = [
                ("microbatch", microbatch.map(|n| n as u64)),
                ("chunk", chunk.map(|n| n as u64)),
                ("bytes", bytes),
            ];
            let args: serde_json::Map<String, Value> =
                given.into_iter().filter_map(|(key, n)| Some((key.into(), n?.into()))).collect();
            complete(tid, span.name, span.category.name(), (span.start, span.end), args)
        }));
        let idle = |gap| complete(tid, "bubble", "bubble", gap, serde_json::Map::new());
        events.extend(bubbles(&spans).into_iter().map(idle));
    }
    let events: Vec<String> = events.iter().map(Value::to_string).collect();
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", events.join(",\n"))
}

/// A complete event, kind `X`: name and category first, for those who read the file.
fn complete(
    tid: usize,
    name: &str,
    category: &str,
    (start, end): (f64, f64),
    args: serde_json::Map<String, Value>,
) -> Value {
    let nanosecond = |us: f64| (us * 1e3).round() / 1e3;
    json!({
        "name": name, "cat": category, "ph": "X", "pid": 0, "tid": tid,
        "ts": nanosecond(start), "dur": nanosecond(end - start), "args": args,
    })
}

/// Writes the trace of these ranks to `path`: whole, or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, ranks: &[Recorder]) -> Result<()> {
    replace(path, trace(ranks).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A rank whose spans, in microseconds, come in any order.
    fn rank(rank: usize, capacity: usize, spans: &[(Category, u64, u64)]) -> Recorder {
        let origin = Instant::now();
        let recorder = Recorder::new(rank, "stage \"0\"", origin, capacity);
        let at = |us: u64| origin + Duration::from_micros(us);
        for (i, &(category, start, end)) in spans.iter().enumerate() {
            let args = Args { microbatch: Some(i), ..Args::default() };
            recorder.span(category, category.name(), at(start), at(end), args);
        }
        recorder
    }

    #[test]
    fn a_trace_is_what_viewers_expect() {
        use Category::{Backward, Collective, Forward};
        let ranks = [
            rank(0, 9, &[(Collective, 110, 120), (Forward, 100, 150), (Backward, 500, 900)]),
            rank(1, 9, &[(Forward, 200, 300)]),
        ];
        let trace: Value = serde_json::from_str(&trace(&ranks)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        let names: Vec<&Value> =
            of("M").iter().filter(|e| e["name"] == "thread_name").map(|e| &e["args"]["name"]).collect();
        assert_eq!(names, ["rank 0: stage \"0\"", "rank 1: stage \"0\""]);
        let rows: Vec<(u64, &str, f64, f64)> = of("X")
            .iter()
            .map(|e| {
                (
                    e["tid"].as_u64().unwrap(),
                    e["cat"].as_str().unwrap(),
                    e["ts"].as_f64().unwrap(),
                    e["dur"].as_f64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (0, "forward", 100.0, 50.0),
                (0, "collective", 110.0, 10.0),
                (0, "backward", 500.0, 400.0),
                (0, "bubble", 150.0, 350.0),
                (1, "forward", 200.0, 100.0),
            ]
        );
        assert_eq!(of("X")[0]["args"]["microbatch"], 1);
        assert!(of("X")[0]["args"].get("bytes").is_none());
    }

    #[test]
    fn nested_spans_hide_no_bubble_and_make_none() {
        let recorder = rank(
            0,
            9,
            &[
                (Category::Forward, 0, 1000),
                (Category::Send, 100, 200),
                (Category::Forward, 1010, 2000),
                (Category::Forward, 2100, 2200),
            ],
        );
        assert_eq!(bubbles(&recorder.spans()), [(2000.0, 2100.0)]);
        assert!(bubbles(&[]).is_empty());
    }

    #[test]
    fn a_full_recorder_counts_what_it_drops() {
        let recorder =
            rank(0, 2, &[(Category::Forward, 0, 1), (Category::Forward, 2, 3), (Category::Forward, 4, 5)]);
        assert_eq!((recorder.spans().len(), recorder.dropped()), (2, 1));
        assert!(trace(&[recorder]).contains("spans_dropped"));
    }

    #[test]
    fn a_span_that_ends_before_it_begins_has_no_length() {
        let recorder = rank(0, 2, &[(Category::Send, 50, 20)]);
        let span = recorder.spans()[0];
        assert_eq!((span.start, span.end), (50.0, 50.0));
    }

    #[test]
    fn the_file_is_the_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TIMELINE_FILE);
        let ranks = [rank(0, 2, &[(Category::Forward, 0, 1)])];
        write(&path, &ranks).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), trace(&ranks));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
