//! A second thread of a rank, which reduces gradients while the first one goes on with the backward.

use std::ops::Range;
use std::sync::{Mutex, PoisonError, mpsc};

use backend::Result;

/// The range of a chunk's gradients that is done.
pub type Done = (usize, Range<usize>);

/// The thread that reduces buckets, as the interpreter sees it.
pub struct Reducer<'s> {
    done: Mutex<Option<mpsc::Sender<Done>>>,
    thread: Mutex<Option<std::thread::ScopedJoinHandle<'s, Result<()>>>>,
}

impl<'s> Reducer<'s> {
    /// Starts the thread: `reduce` is called with every range that is [handed](Self::reduce) over, in their order, until it fails.
    pub fn start<'e>(
        scope: &'s std::thread::Scope<'s, 'e>,
        reduce: impl Fn(Done) -> Result<()> + Send + 's,
    ) -> Self {
        let (done, ranges) = mpsc::channel::<Done>();
        let thread = scope.spawn(move || ranges.into_iter().try_for_each(reduce));
        Self { done: Mutex::new(Some(done)), thread: Mutex::new(Some(thread)) }
    }

    /// Has a range of a chunk's gradients reduced.
    pub fn reduce(&self, chunk: usize, range: Range<usize>) {
        if let Some(done) = &*self.done.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody listens where the thread has failed: `finish` says why.
            let _ = done.send((chunk, range));
        }
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// The first of the reductions'.
    pub fn finish(&self) -> Result<()> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        match self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => Ok(()),
        }
    }
}
