//! What a rank last said to the others: written to the run directory when a run stops with an error, so that it can be seen who waited for whom in what.
//!
//! [`Recorded`] stands between the engine and a communicator. It passes every call on, keeps the last [`KEPT`] of them, and, while a timeline is recorded,
//! tells it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use backend::{Buffer, Communicator, DType, Group, Lane, ReduceOp, Result, View};
use serde::Serialize;

use crate::metrics::replace;
use crate::timeline::{Args, Category, Recorder};

/// Calls that are kept.
pub const KEPT: usize = 64;
/// The folder in a run directory.
pub const LEDGER_DIR: &str = "ledger";

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Its number on this rank, from 0.
    pub number: u64,
    /// `all_reduce`, `send` …
    pub op: &'static str,
    /// The group, by name.
    pub group: &'static str,
    /// World ranks that take part, or the one at the other end.
    pub ranks: Vec<usize>,
    /// Bytes of this rank's operand.
    pub bytes: usize,
    /// Seconds since the rank began.
    pub begun: f64,
    /// How long it took; `None` for one that has not returned, or failed.
    pub seconds: Option<f64>,
}

/// What is written.
#[derive(Serialize)]
struct Page<'a> {
    rank: usize,
    error: &'a str,
    calls: &'a VecDeque<Call>,
}

/// A communicator whose calls are kept.
pub struct Recorded<'a, B: Buffer> {
    inner: &'a dyn Communicator<B>,
    recorder: Option<&'a Recorder>,
    begun: Instant,
    calls: Mutex<(u64, VecDeque<Call>)>,
}

impl<'a, B: Buffer> Recorded<'a, B> {
    /// Between the engine and `inner`; tells `recorder` of each call.
    pub fn new(inner: &'a dyn Communicator<B>, recorder: Option<&'a Recorder>) -> Self {
        Self { inner, recorder, begun: inner.now(), calls: Mutex::default() }
    }

    /// Writes the last calls and the error to `RUN/ledger/rank-N.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, run_dir: &Path, error: &str) -> crate::Result<()> {
        let dir = run_dir.join(LEDGER_DIR);
        std::fs::create_dir_all(&dir).map_err(|e| crate::Error::io("create the ledger", &dir, &e))?;
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let page = Page { rank: self.inner.rank(), error, calls: &calls.1 };
        let text = serde_json::to_string_pretty(&page).expect("a ledger has only JSON's types");
        replace(&dir.join(format!("rank-{}.json", self.inner.rank())), text.as_bytes())
    }

    fn call<R>(
        &self,
        (op, group, category): (&'static str, &'static str, Category),
        ranks: &[usize],
        bytes: usize,
        body: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let kept = || self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = self.inner.now();
        let number = {
            let (next, calls) = &mut *kept();
            let begun = begin.duration_since(self.begun).as_secs_f64();
            if calls.len() == KEPT {
                calls.pop_front();
            }
            calls.push_back(Call {
                number: *next,
                op,
                group,
                ranks: ranks.to_vec(),
                bytes,
                begun,
                seconds: None,
            });
            *next += 1;
            *next - 1
        };
        let result = body()?;
        let end = self.inner.now();
        if let Some(call) = kept().1.iter_mut().rev().find(|call| call.number == number) {
            call.seconds = Some(end.duration_since(begin).as_secs_f64());
        }
        if let Some(recorder) = self.recorder {
            let args = Args { bytes: Some(bytes as u64), ..Args::default() };
            recorder.span(category, op, begin, end, args);
        }
        Ok(result)
    }

    fn collective(
        &self,
        op: &'static str,
        group: &Group,
        bytes: usize,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // A group of one says nothing.
        match group.size() {
            1 => body(),
            _ => self.call((op, group.kind().name(), Category::Collective), group.ranks(), bytes, body),
        }
    }
}

impl<B: Buffer> Communicator<B> for Recorded<'_, B> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, B>) -> Result<()> {
        self.collective("all_reduce", group, data.bytes(), || self.inner.all_reduce(group, op, data))
    }

    fn reduce_scatter(&self, group: &Group, src: View<'_, B>, dst: View<'_, B>) -> Result<()> {
        self.collective("reduce_scatter", group, src.bytes(), || self.inner.reduce_scatter(group, src, dst))
    }

    fn all_gather(&self, group: &Group, src: View<'_, B>, dst: View<'_, B>) -> Result<()> {
        self.collective("all_gather", group, dst.bytes(), || self.inner.all_gather(group, src, dst))
    }

    fn broadcast(&self, group: &Group, root: usize, data: View<'_, B>) -> Result<()> {
        self.collective("broadcast", group, data.bytes(), || self.inner.broadcast(group, root, data))
    }

    fn send(&self, to: usize, lane: Lane, data: View<'_, B>) -> Result<()> {
        self.call(("send", "pipeline", Category::Send), &[to], data.bytes(), || {
            self.inner.send(to, lane, data)
        })
    }

    fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        self.inner.reserve(to, messages, dtype, len)
    }

    fn recv(&self, from: usize, lane: Lane, data: View<'_, B>) -> Result<()> {
        self.call(("recv", "pipeline", Category::Receive), &[from], data.bytes(), || {
            self.inner.recv(from, lane, data)
        })
    }

    fn barrier(&self, group: &Group) -> Result<()> {
        self.collective("barrier", group, 0, || self.inner.barrier(group))
    }

    fn fail(&self, cause: &str) {
        self.inner.fail(cause);
    }
}
