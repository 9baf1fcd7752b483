//! Where the ranks of one process meet: host-side meeting points and mailboxes, with a timeout and a word for the rank that did not come.
//!
//! Knows nothing of devices: what ranks bring is any `T`. [`local`](crate::local) builds the collectives on it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Group, Lane, Result};

/// A call that ranks make together, for the errors.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The operation.
    pub op: &'static str,
    /// The group.
    pub group: &'a Group,
    /// The calling world rank.
    pub rank: usize,
}

/// What every rank brought, in the order of the group.
pub type Gathered<T> = Arc<Vec<T>>;

/// One group's meeting point.
struct Point<T> {
    state: Mutex<Meeting<T>>,
    changed: Condvar,
}

struct Meeting<T> {
    /// Counts the meetings that are over.
    generation: u64,
    /// What those who have come to the present meeting brought.
    items: Vec<Option<T>>,
    /// What the last meeting gathered.
    gathered: Gathered<T>,
}

/// Messages on their way from one rank to another.
struct Mailbox<M> {
    queue: Mutex<VecDeque<M>>,
    arrived: Condvar,
}

/// The mailboxes that are open, by sender, receiver and lane.
type Mailboxes<M> = HashMap<(usize, usize, Lane), Arc<Mailbox<M>>>;

/// The first failure: who, and what it said.
#[derive(Clone)]
struct Failure {
    rank: usize,
    cause: String,
}

/// The meeting points and mailboxes of one world of ranks.
pub struct Rendezvous<T, M> {
    timeout: Duration,
    points: Mutex<HashMap<Group, Arc<Point<T>>>>,
    mailboxes: Mutex<Mailboxes<M>>,
    failure: Mutex<Option<Failure>>,
}

/// A rank that panicked while holding a lock has failed and said so; the data under the lock are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone, M> Rendezvous<T, M> {
    /// A world without a meeting yet; no wait in it lasts longer than `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, points: Mutex::default(), mailboxes: Mutex::default(), failure: Mutex::default() }
    }

    /// Brings `item`, waits for the rest of the group, and returns what all of them brought.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the ranks that did not come; [`Error::PeerFailed`] once any rank has failed.
    pub fn meet(&self, call: Call<'_>, position: usize, item: T) -> Result<Gathered<T>> {
        let point = {
            let mut points = lock(&self.points);
            let size = call.group.size();
            let open = || {
                Arc::new(Point {
                    state: Mutex::new(Meeting {
                        generation: 0,
                        items: vec![None; size],
                        gathered: Arc::default(),
                    }),
                    changed: Condvar::new(),
                })
            };
            Arc::clone(points.entry(call.group.clone()).or_insert_with(open))
        };
        let mut meeting = lock(&point.state);
        self.check(call)?;
        let generation = meeting.generation;
        meeting.items[position] = Some(item);
        if meeting.items.iter().all(Option::is_some) {
            meeting.gathered = Arc::new(meeting.items.iter_mut().filter_map(Option::take).collect());
            meeting.generation += 1;
            point.changed.notify_all();
            return Ok(Arc::clone(&meeting.gathered));
        }
        let deadline = Instant::now() + self.timeout;
        while meeting.generation == generation {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let missing = meeting.items.iter().zip(call.group.ranks());
                let missing = missing.filter(|(item, _)| item.is_none()).map(|(_, &rank)| rank).collect();
                drop(meeting);
                return Err(self.timed_out(call, missing));
            }
            meeting = point.changed.wait_timeout(meeting, left).unwrap_or_else(PoisonError::into_inner).0;
            // A meeting that took place counts, even if a rank failed right after it.
            if meeting.generation == generation {
                self.check(call)?;
            }
        }
        Ok(Arc::clone(&meeting.gathered))
    }

    /// Leaves a message for rank `to` on that lane.
    ///
    /// # Errors
    /// [`Error::PeerFailed`] once any rank has failed.
    pub fn post(&self, call: Call<'_>, to: usize, lane: Lane, message: M) -> Result<()> {
        self.check(call)?;
        let mailbox = self.mailbox(call.rank, to, lane);
        lock(&mailbox.queue).push_back(message);
        mailbox.arrived.notify_one();
        Ok(())
    }

    /// Waits for the oldest message from rank `from` on that lane.
    ///
    /// # Errors
    /// As [`meet`](Self::meet).
    pub fn collect(&self, call: Call<'_>, from: usize, lane: Lane) -> Result<M> {
        let mailbox = self.mailbox(from, call.rank, lane);
        let deadline = Instant::now() + self.timeout;
        let mut queue = lock(&mailbox.queue);
        loop {
            if let Some(message) = queue.pop_front() {
                return Ok(message);
            }
            self.check(call)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(queue);
                return Err(self.timed_out(call, vec![from]));
            }
            queue = mailbox.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Records that `rank` has failed, unless another one was first, and wakes everybody who waits.
    pub fn fail(&self, rank: usize, cause: &str) {
        lock(&self.failure).get_or_insert_with(|| Failure { rank, cause: cause.to_owned() });
        // Taking each lock makes sure that nobody is between its check and its wait.
        for point in lock(&self.points).values() {
            drop(lock(&point.state));
            point.changed.notify_all();
        }
        for mailbox in lock(&self.mailboxes).values() {
            drop(lock(&mailbox.queue));
            mailbox.arrived.notify_all();
        }
    }

    /// The first rank that failed, and its words.
    pub fn failure(&self) -> Option<(usize, String)> {
        lock(&self.failure).clone().map(|failure| (failure.rank, failure.cause))
    }

    fn mailbox(&self, from: usize, to: usize, lane: Lane) -> Arc<Mailbox<M>> {
        let open = || Arc::new(Mailbox { queue: Mutex::default(), arrived: Condvar::new() });
        Arc::clone(lock(&self.mailboxes).entry((from, to, lane)).or_insert_with(open))
    }

    fn check(&self, call: Call<'_>) -> Result<()> {
        match lock(&self.failure).clone() {
            None => Ok(()),
            Some(Failure { rank: peer, cause }) => Err(Error::PeerFailed {
                op: call.op,
                group: call.group.kind().name(),
                rank: call.rank,
                peer,
                cause,
            }),
        }
    }

    fn timed_out(&self, call: Call<'_>, missing: Vec<usize>) -> Error {
        let error = Error::Timeout {
            op: call.op,
            group: call.group.kind().name(),
            rank: call.rank,
            missing,
            seconds: self.timeout.as_secs(),
        };
        self.fail(call.rank, &error.to_string());
        error
    }
}
