//! Samples read ahead of the ranks, on a thread of their own: while a step runs, the samples of the next one are read.
//!
//! [`Prefetch`] is itself [`Samples`] and changes no answer: a sample is the same whether it was [announced](Prefetch::announce), is being read, or is asked
//! for out of the blue. So neither a resumed run nor the end of an epoch is anything to it. It holds what was announced last and the step before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::Samples;

/// A sample's tokens, or why it cannot be read.
type Answer = Result<Vec<u32>, String>;

/// What the reader and the rank share. It outlives both.
#[derive(Debug, Default)]
pub struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be read, in order.
    wanted: Range<u64>,
    /// What is being read.
    reading: Option<u64>,
    ready: BTreeMap<u64, Answer>,
    times: Times,
    closed: bool,
}

/// Where the time of reading went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Reading, beside the rank.
    pub reading: Duration,
    /// The rank's waits for samples, its own reading included.
    pub waiting: Duration,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader's thread.
    fn work(&self, samples: &dyn Samples, len: usize) {
        let mut state = self.lock();
        while !state.closed {
            let Some(index) = state.wanted.next() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if state.ready.contains_key(&index) {
                continue;
            }
            state.reading = Some(index);
            drop(state);
            let begin = Instant::now();
            let answer = read(samples, index, len);
            state = self.lock();
            state.times.reading += begin.elapsed();
            state.reading = None;
            state.ready.insert(index, answer);
            self.changed.notify_all();
        }
    }
}

fn read(samples: &dyn Samples, index: u64, len: usize) -> Answer {
    let mut tokens = vec![0; len];
    samples.read(index, &mut tokens).map(|()| tokens)
}

/// Samples that are read ahead for one rank.
pub struct Prefetch<'a> {
    samples: &'a dyn Samples,
    shelf: &'a Shelf,
}

impl<'a> Prefetch<'a> {
    /// Starts the reader of samples of `len` tokens; it ends with the value.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        shelf: &'a Shelf,
        samples: &'a dyn Samples,
        len: usize,
    ) -> Self
    where
        'a: 'scope,
    {
        scope.spawn(move || shelf.work(samples, len));
        Self { samples, shelf }
    }

    /// The rank will ask for these next. What lies before `keep` it asks for no more.
    pub fn announce(&self, keep: u64, next: Range<u64>) {
        let mut state = self.shelf.lock();
        state.ready.retain(|&index, _| index >= keep && index < next.end.max(keep));
        state.wanted = next;
        self.shelf.changed.notify_all();
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.shelf.lock().times
    }
}

impl Samples for Prefetch<'_> {
    fn read(&self, index: u64, out: &mut [u32]) -> Result<(), String> {
        let begin = Instant::now();
        let mut state = self.shelf.lock();
        while state.reading == Some(index) {
            state = self.shelf.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let there =
            state.ready.get(&index).filter(|answer| answer.as_ref().is_ok_and(|t| t.len() == out.len()));
        let result = match there {
            Some(answer) => answer.as_ref().map(|tokens| out.copy_from_slice(tokens)).map_err(String::clone),
            None => {
                drop(state);
                let result = self.samples.read(index, out);
                state = self.shelf.lock();
                result
            }
        };
        state.times.waiting += begin.elapsed();
        result
    }
}

impl Drop for Prefetch<'_> {
    fn drop(&mut self) {
        self.shelf.lock().closed = true;
        self.shelf.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Ten tokens that say the index; none from the hundredth sample on. Counts its calls.
    struct Numbers(AtomicUsize);

    impl Samples for Numbers {
        fn read(&self, index: u64, out: &mut [u32]) -> Result<(), String> {
            self.0.fetch_add(1, Relaxed);
            if index >= 100 {
                return Err(format!("no sample {index}"));
            }
            out.iter_mut().zip(0..).for_each(|(token, i)| *token = index as u32 * 10 + i);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is announced and whatever is asked for, in whatever order: the answers are those of the samples.
        #[test]
        fn no_answer_changes(steps in prop::collection::vec((0u64..110, 0u64..8, prop::collection::vec(0u64..110, 0..6)), 1..12)) {
            let (shelf, numbers) = (Shelf::default(), Numbers(AtomicUsize::new(0)));
            std::thread::scope(|scope| {
                let prefetch = Prefetch::start(scope, &shelf, &numbers, 10);
                for (first, len, asked) in steps {
                    prefetch.announce(first.saturating_sub(len), first..first + len);
                    for index in asked.into_iter().chain(first..first + len) {
                        let (mut ours, mut theirs) = ([0; 10], [0; 10]);
                        let (a, b) = (prefetch.read(index, &mut ours), numbers.read(index, &mut theirs));
                        prop_assert_eq!((a, ours), (b, theirs));
                    }
                }
                Ok(())
            })?;
        }
    }

    /// What is announced is read once, and not by who asks; what lies behind is let go.
    #[test]
    fn what_is_announced_is_read_beside() {
        let (shelf, numbers) = (Shelf::default(), Numbers(AtomicUsize::new(0)));
        std::thread::scope(|scope| {
            let prefetch = Prefetch::start(scope, &shelf, &numbers, 10);
            for step in 0..5u64 {
                let (this, next) = (step * 4, (step + 1) * 4);
                if step == 0 {
                    prefetch.announce(0, 0..4);
                    while shelf.lock().ready.len() < 4 {
                        std::thread::yield_now();
                    }
                }
                prefetch.announce(this, next..next + 4);
                for index in (this..next).rev() {
                    let mut tokens = [0; 10];
                    prefetch.read(index, &mut tokens).unwrap();
                    assert_eq!(tokens[3], index as u32 * 10 + 3);
                }
                while shelf.lock().ready.range(next..).count() < 4 {
                    std::thread::yield_now();
                }
                assert_eq!(shelf.lock().ready.len(), 8);
            }
            assert_eq!(numbers.0.load(Relaxed), 24);
        });
    }
}
