//! Messages that have arrived, and the word of failure: where a transport's threads and its rank meet.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::transport::{Channel, Interrupted};

/// A thread that panicked while holding a lock left the data under it whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One rank's mailboxes, one a peer and channel.
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queues: Vec<[VecDeque<Vec<u8>>; Channel::ALL.len()]>,
    /// Peers that have said goodbye.
    left: Vec<bool>,
    failure: Option<(usize, String)>,
}

impl Inbox {
    pub(super) fn new(world_size: usize) -> Self {
        let queues = (0..world_size).map(|_| Default::default()).collect();
        let state = State { queues, left: vec![false; world_size], failure: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn arrive(&self, from: usize, channel: Channel, message: Vec<u8>) {
        lock(&self.state).queues[from][channel.index()].push_back(message);
        self.changed.notify_all();
    }

    /// Waits for the oldest message from that rank on that channel.
    pub(super) fn take(
        &self,
        from: usize,
        channel: Channel,
        timeout: Duration,
    ) -> Result<Vec<u8>, Interrupted> {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if let Some(message) = state.queues[from][channel.index()].pop_front() {
                return Ok(message);
            }
            state.alive(from)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Interrupted::Silence);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether nobody has failed and that rank is still there.
    pub(super) fn alive(&self, peer: usize) -> Result<(), Interrupted> {
        lock(&self.state).alive(peer)
    }

    /// Records a failure, unless another one was first.
    pub(super) fn fail(&self, rank: usize, cause: &str) {
        lock(&self.state).failure.get_or_insert_with(|| (rank, cause.to_owned()));
        self.changed.notify_all();
    }

    pub(super) fn failure(&self) -> Option<(usize, String)> {
        lock(&self.state).failure.clone()
    }

    pub(super) fn leave(&self, peer: usize) {
        lock(&self.state).left[peer] = true;
        self.changed.notify_all();
    }

    #[cfg(feature = "mpi")]
    pub(super) fn has_left(&self, peer: usize) -> bool {
        lock(&self.state).left[peer]
    }
}

impl State {
    fn alive(&self, peer: usize) -> Result<(), Interrupted> {
        match &self.failure {
            Some((rank, cause)) => Err(Interrupted::Failed { rank: *rank, cause: cause.clone() }),
            None if self.left[peer] => {
                let cause = "it has ended its run while others still need it".to_owned();
                Err(Interrupted::Failed { rank: peer, cause })
            }
            None => Ok(()),
        }
    }
}
