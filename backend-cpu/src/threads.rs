//! The threads that share one rank's operations.
//!
//! An operation is cut into tasks by its extents alone, never by the number of threads, and each task writes elements of its own: whoever does which
//! task, the bits are the same.
//!
//! A training step is hundreds of operations of some ten to some thousand microseconds, one after the other, so what counts is how fast a helper
//! begins. Helpers therefore watch for the next operation for a moment before they sleep, and the caller never waits for one that has not begun.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a helper watches for the next operation, and a caller for the helpers' last tasks, before it gives its core away.
const WATCH: Duration = Duration::from_micros(100);

/// A rank's threads: the one that calls, and its helpers.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held while an operation is shared; who finds it taken works alone.
    calling: Mutex<()>,
}

impl Threads {
    /// `count` threads, the calling one included. If the system gives no more, those that it gives.
    pub(crate) fn new(count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let helper = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("cpu-{index}");
            std::thread::Builder::new().name(name).spawn(move || shared.help(index)).ok()
        };
        let helpers = (1..count).map_while(helper).collect();
        Self { shared, helpers, calling: Mutex::new(()) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        1 + self.helpers.len()
    }

    /// Does tasks `0 .. tasks`, each once, calling `work(thread, task)`; `thread` is below [`count`](Self::count), and no two of these calls at one time share it.
    pub(crate) fn run(&self, tasks: usize, work: impl Fn(usize, usize) + Sync) {
        let calling = match self.calling.try_lock() {
            Ok(calling) => Some(calling),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if tasks <= 1 || self.helpers.is_empty() || calling.is_none() {
            return (0..tasks).for_each(|task| work(0, task));
        }
        let next = AtomicUsize::new(0);
        let drain = |thread: usize| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                work(thread, task);
            }
        };
        self.shared.panicked.store(false, Ordering::Relaxed);
        let open = self.shared.open(&drain);
        drain(0);
        drop(open);
        assert!(!self.shared.panicked.load(Ordering::Relaxed), "a helper thread panicked");
    }

    /// Does `0 .. n` in pieces of `grain` (the last one shorter), calling `work` with each piece's range.
    pub(crate) fn pieces(&self, n: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        self.run(n.div_ceil(grain), |_, task| work(task * grain..n.min((task + 1) * grain)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.state.fetch_or(OVER, Ordering::SeqCst);
        self.shared.wake();
        for helper in self.helpers.drain(..) {
            // A helper catches what it panics with; there is nothing more to learn from it.
            let _ = helper.join();
        }
    }
}

/// What the helpers are to do: called with the helper's index.
type Job = *const (dyn Fn(usize) + Sync);

/// [`Shared::state`]: how many helpers are at the job; whether more may join; whether there will be no more jobs; and, above these, the job's number.
const HELPERS: u64 = 0xFFFF;
const OPEN: u64 = 1 << 16;
const OVER: u64 = 1 << 17;
const NUMBER: u64 = 1 << 32;

/// What the caller and the helpers share.
struct Shared {
    state: AtomicU64,
    /// Written by the caller while the state is neither open nor has helpers; read by helpers that the state counts.
    job: UnsafeCell<Option<Job>>,
    panicked: AtomicBool,
    asleep: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
}

// SAFETY: the job is a pointer to something Sync, passed on by `state` as its comment says.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
        }
    }
}

/// A job that helpers may join until it is dropped, which waits for those that have.
struct Open<'a> {
    shared: &'a Shared,
}

impl Shared {
    /// Lets helpers join `job`. One caller at a time (`Threads::calling`).
    fn open<'a>(&'a self, job: &'a (dyn Fn(usize) + Sync)) -> Open<'a> {
        // SAFETY: only the lifetime goes: helpers use the job while the state counts them, which `Open` outlives, and `Open` does not outlive the job.
        let job = unsafe { std::mem::transmute::<&'a (dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: the last job's `Open` has closed it and seen its helpers leave, so nobody reads.
        unsafe { *self.job.get() = Some(job) };
        // The number goes up by one and the job is open: Release for the helpers that will see it, SeqCst against those that fall asleep.
        self.state.fetch_add(NUMBER | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
        Open { shared: self }
    }

    fn wake(&self) {
        // Taking the lock makes sure that nobody is between its last look at the state and its sleep.
        drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_all();
    }

    /// A helper's life.
    fn help(&self, index: usize) {
        let mut last = 0;
        while let Some(number) = self.join_after(last) {
            last = number;
            // SAFETY: the state counts this helper, so the job is in place and stays.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(job) = job
                && catch_unwind(AssertUnwindSafe(|| job(index))).is_err()
            {
                self.panicked.store(true, Ordering::Relaxed);
            }
            // Release: what the job wrote is seen by the caller that sees the helper gone.
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job with another number than `last` and joins it; `None` when there will be none.
    fn join_after(&self, last: u64) -> Option<u64> {
        let ready = |state: u64| state & OVER != 0 || (state & OPEN != 0 && state / NUMBER != last);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state & OVER != 0 {
                return None;
            }
            if ready(state) {
                let joined =
                    self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed);
                if joined.is_ok() {
                    return Some(state / NUMBER);
                }
                continue;
            }
            if watch(|| ready(self.state.load(Ordering::Relaxed))) {
                continue;
            }
            let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            self.asleep.fetch_add(1, Ordering::SeqCst);
            while !ready(self.state.load(Ordering::SeqCst)) {
                door = self.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let state = self.shared.state.fetch_and(!OPEN, Ordering::Acquire);
        let gone = || self.shared.state.load(Ordering::Acquire) & HELPERS == 0;
        if state & HELPERS == 0 || watch(gone) {
            return;
        }
        while !gone() {
            std::thread::yield_now();
        }
    }
}

/// Looks until the condition holds, for as long as [`WATCH`]; whether it did.
fn watch(condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        for _ in 0..32 {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() > WATCH {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_done_once() {
        for count in [1, 2, 5] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count);
            for round in 0..2000 {
                let tasks = round % 9;
                let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let busy: Vec<AtomicBool> = (0..count).map(|_| AtomicBool::new(false)).collect();
                threads.run(tasks, |thread, task| {
                    assert!(!busy[thread].swap(true, Ordering::Relaxed), "two calls share a thread's number");
                    done[task].fetch_add(1, Ordering::Relaxed);
                    busy[thread].store(false, Ordering::Relaxed);
                });
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
                if round % 500 == 0 {
                    // Long enough for the helpers to fall asleep.
                    std::thread::sleep(WATCH * 3);
                }
            }
        }
    }

    #[test]
    fn pieces_cover_the_range() {
        let sum = AtomicUsize::new(0);
        Threads::new(2).pieces(1000, 33, |piece| {
            assert!(piece.len() == 33 || piece == (990..1000));
            sum.fetch_add(piece.sum::<usize>(), Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 499_500);
    }

    #[test]
    fn callers_at_one_time_do_not_disturb_each_other() {
        let threads = Threads::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let sum = AtomicUsize::new(0);
                        threads.run(7, |_, task| {
                            sum.fetch_add(task, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 21);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_live_on() {
        let threads = Threads::new(2);
        for _ in 0..50 {
            let panicking = catch_unwind(AssertUnwindSafe(|| {
                threads.run(8, |_, task| assert!(task != 5, "task 5"));
            }));
            assert!(panicking.is_err());
            let sum = AtomicUsize::new(0);
            threads.run(8, |_, task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }
}
