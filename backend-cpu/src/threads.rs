//! The threads that share one rank's operations.
//!
//! An operation is cut into tasks by its extents alone, never by the number of threads, and each task writes elements of its own: whoever does which
//! task, the bits are the same.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A rank's threads: the one that calls, and a pool of helpers where there are more.
pub(crate) struct Threads {
    helpers: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// `count` threads, the calling one included. If the system gives no more, those that it gives.
    pub(crate) fn new(count: usize) -> Self {
        let helpers = match count {
            0 | 1 => None,
            _ => rayon::ThreadPoolBuilder::new()
                .num_threads(count - 1)
                .thread_name(|i| format!("cpu-{}", i + 1))
                .build()
                .ok(),
        };
        let count = helpers.as_ref().map_or(1, |_| count);
        Self { helpers, count }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Does tasks `0 .. tasks`, each once, calling `work(thread, task)`; `thread` is below [`count`](Self::count), and no two calls at one time share it.
    pub(crate) fn run(&self, tasks: usize, work: impl Fn(usize, usize) + Sync) {
        let next = AtomicUsize::new(0);
        let drain = |thread: usize| {
            loop {
                let task = next.fetch_add(1, Relaxed);
                if task >= tasks {
                    return;
                }
                work(thread, task);
            }
        };
        match &self.helpers {
            Some(helpers) if tasks > 1 => helpers.in_place_scope(|scope| {
                let drain = &drain;
                for thread in 1..self.count.min(tasks) {
                    scope.spawn(move |_| drain(thread));
                }
                drain(0);
            }),
            _ => (0..tasks).for_each(|task| work(0, task)),
        }
    }

    /// Does `0 .. n` in pieces of `grain` (the last one shorter), calling `work` with each piece's range.
    pub(crate) fn pieces(&self, n: usize, grain: usize, work: impl Fn(std::ops::Range<usize>) + Sync) {
        self.run(n.div_ceil(grain), |_, task| work(task * grain..n.min((task + 1) * grain)));
    }
}
