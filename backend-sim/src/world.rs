//! Where simulated ranks meet, and who stands for whom.
//!
//! Threads of ranks wait for each other in real time only to learn each other's simulated time. A world in which every rank waits can never go on: that is
//! seen at once, without a timeout, and told with what each of them was doing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use backend::{DType, Error, Group, Lane, Result, Shape};

use crate::cluster::Cluster;
use crate::stack::Stack;

/// The ranks of a world that run; each of the others does what one of these does, at the same time.
#[derive(Clone, Debug)]
pub struct Present {
    world_size: usize,
    ranks: Vec<usize>,
    /// The place among `ranks` of each rank of the world.
    place: Vec<Option<usize>>,
}

impl Present {
    /// Every rank runs.
    pub fn all(world_size: usize) -> Self {
        Self::of(world_size, (0..world_size).collect())
    }

    /// These of a world run.
    ///
    /// # Panics
    /// If one is not of the world.
    pub fn of(world_size: usize, ranks: Vec<usize>) -> Self {
        let mut place = vec![None; world_size];
        ranks.iter().enumerate().for_each(|(i, &rank)| place[rank] = Some(i));
        Self { world_size, ranks, place }
    }

    /// World ranks that run.
    pub fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Ranks in all.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    fn place(&self, rank: usize) -> Option<usize> {
        self.place.get(rank).copied().flatten()
    }

    /// How many of these run.
    pub(crate) fn count(&self, ranks: &[usize]) -> usize {
        ranks.iter().filter(|&&rank| self.place(rank).is_some()).count()
    }
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// When it is there.
    pub at: f64,
    /// How long it travelled.
    pub seconds: f64,
    pub dtype: DType,
    pub shape: Shape,
}

/// What a rank brings to a meeting: all must bring the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub op: &'static str,
    pub dtype: DType,
    pub len: usize,
    pub root: usize,
}

/// A meeting that some have come to.
#[derive(Default)]
struct Meeting {
    /// Who came first, and with what.
    call: Option<(usize, Call)>,
    come: Vec<usize>,
    latest: f64,
    /// Meetings of the group that are over, and when the last one's latest member came.
    over: u64,
    at: f64,
}

#[derive(Default)]
struct State {
    /// Ranks that neither wait nor are done.
    running: usize,
    /// For what each rank that runs waits, in words.
    waiting: Vec<Option<String>>,
    meetings: HashMap<Group, Meeting>,
    lanes: HashMap<(usize, usize, Lane), VecDeque<Message>>,
    failure: Option<Failure>,
}

#[derive(Clone)]
enum Failure {
    Of(usize, String),
    Deadlock(Error),
}

/// What the ranks of a simulated cluster share.
pub struct World {
    pub(crate) cluster: Cluster,
    pub(crate) stack: Stack,
    pub(crate) present: Present,
    /// The clock's zero.
    pub(crate) epoch: Instant,
    state: Mutex<State>,
    woken: Vec<Condvar>,
}

impl World {
    /// A world of these ranks on that cluster, with that software.
    pub fn new(cluster: Cluster, stack: Stack, present: Present) -> Arc<Self> {
        let count = present.ranks.len();
        let state = State { running: count, waiting: vec![None; count], ..State::default() };
        let woken = (0..count).map(|_| Condvar::new()).collect();
        Arc::new(Self { cluster, stack, present, epoch: Instant::now(), state: Mutex::new(state), woken })
    }

    /// The ranks that run.
    pub fn present(&self) -> &Present {
        &self.present
    }

    /// The machine.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The software.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by a rank that panics in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the present ones of the group, and returns when the latest of them came.
    pub(crate) fn meet(&self, rank: usize, group: &Group, call: Call, now: f64, doing: &str) -> Result<f64> {
        let needed = self.present.count(group.ranks());
        let me = self.me(rank)?;
        let mut state = self.state();
        self.check(&state, rank, call.op, group)?;
        let meeting = state.meetings.entry(group.clone()).or_default();
        let (first, same) = *meeting.call.get_or_insert((rank, call));
        if same != call {
            let words =
                |call: Call| format!("{} of {}[{}] (root {})", call.op, call.dtype, call.len, call.root);
            let error = Error::Mismatch {
                op: call.op,
                group: group.kind().name(),
                rank: first,
                mine: words(same),
                peer: rank,
                theirs: words(call),
            };
            self.failed(&mut state, Failure::Of(rank, error.to_string()));
            return Err(error);
        }
        meeting.latest = if meeting.come.is_empty() { now } else { meeting.latest.max(now) };
        meeting.come.push(me);
        let over = meeting.over;
        if meeting.come.len() == needed {
            (meeting.at, meeting.call) = (meeting.latest, None);
            meeting.over += 1;
            let (at, come) = (meeting.at, std::mem::take(&mut meeting.come));
            come.into_iter().for_each(|other| self.wake(&mut state, other));
            return Ok(at);
        }
        let here = || {
            let others =
                group.ranks().iter().filter(|&&other| other != rank && self.present.place(other).is_some());
            let others: Vec<usize> = others.copied().collect();
            format!(
                "rank {rank}, {doing}: {} of {}[{}] in the {} group, with rank(s) {others:?}",
                call.op,
                call.dtype,
                call.len,
                group.kind().name()
            )
        };
        let mut state = self.wait(state, rank, me, here)?;
        loop {
            match state.meetings.get(group) {
                Some(meeting) if meeting.over > over => return Ok(meeting.at),
                _ => state = self.wait(state, rank, me, here)?,
            }
        }
    }

    /// Leaves a message.
    pub(crate) fn post(&self, from: usize, to: usize, lane: Lane, message: Message) -> Result<()> {
        let mut state = self.state();
        self.check_any(&state, from, "send")?;
        state.lanes.entry((from, to, lane)).or_default().push_back(message);
        if let Some(other) = self.present.place(to) {
            self.wake(&mut state, other);
        }
        Ok(())
    }

    /// Waits for the oldest message of a lane.
    pub(crate) fn collect(&self, from: usize, to: usize, lane: Lane, doing: &str) -> Result<Message> {
        let me = self.me(to)?;
        let mut state = self.state();
        loop {
            if let Some(message) = state.lanes.get_mut(&(from, to, lane)).and_then(VecDeque::pop_front) {
                return Ok(message);
            }
            self.check_any(&state, to, "recv")?;
            let words = || format!("rank {to}, {doing}: recv from rank {from} on the {lane:?} lane");
            state = self.wait(state, to, me, words)?;
        }
    }

    fn me(&self, rank: usize) -> Result<usize> {
        self.present.place(rank).ok_or_else(|| Error::Argument {
            op: "communicator",
            name: "rank",
            value: rank.to_string(),
            range: "a rank that runs",
        })
    }

    /// Sleeps until somebody wakes this rank. The last one to fall asleep has found the deadlock.
    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        rank: usize,
        me: usize,
        words: impl Fn() -> String,
    ) -> Result<MutexGuard<'s, State>> {
        state.waiting[me] = Some(words());
        state.running -= 1;
        self.look_for_deadlock(&mut state);
        while state.waiting[me].is_some() {
            state = self.woken[me].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.check_any(&state, rank, "wait").map(|()| state)
    }

    /// Everybody waits or is done, and somebody waits.
    fn look_for_deadlock(&self, state: &mut State) {
        let waiting: Vec<String> = state.waiting.iter().flatten().cloned().collect();
        if state.running == 0 && !waiting.is_empty() && state.failure.is_none() {
            self.failed(state, Failure::Deadlock(Error::Deadlock { waiting }));
        }
    }

    fn wake(&self, state: &mut State, me: usize) {
        if state.waiting[me].take().is_some() {
            state.running += 1;
            self.woken[me].notify_one();
        }
    }

    fn failed(&self, state: &mut State, failure: Failure) {
        state.failure.get_or_insert(failure);
        (0..self.woken.len()).for_each(|other| self.wake(state, other));
    }

    fn check(&self, state: &State, rank: usize, op: &'static str, group: &Group) -> Result<()> {
        self.check_in(state, rank, op, group.kind().name())
    }

    fn check_any(&self, state: &State, rank: usize, op: &'static str) -> Result<()> {
        self.check_in(state, rank, op, "pipeline")
    }

    fn check_in(&self, state: &State, rank: usize, op: &'static str, group: &'static str) -> Result<()> {
        match state.failure.clone() {
            None => Ok(()),
            Some(Failure::Deadlock(error)) => Err(error),
            Some(Failure::Of(peer, cause)) => Err(Error::PeerFailed { op, group, rank, peer, cause }),
        }
    }

    /// Records that a rank has failed, unless another one was first.
    pub(crate) fn fail(&self, rank: usize, cause: &str) {
        self.failed(&mut self.state(), Failure::Of(rank, cause.to_owned()));
    }

    /// The rank that failed first; none for a deadlock, which is everybody's.
    pub(crate) fn at_fault(&self) -> Option<usize> {
        match self.state().failure {
            Some(Failure::Of(rank, _)) => Some(rank),
            _ => None,
        }
    }

    /// A rank has come to its end.
    pub(crate) fn done(&self) {
        let mut state = self.state();
        state.running -= 1;
        self.look_for_deadlock(&mut state);
    }

    /// Messages that nobody received: from, to, lane, how many, and what the first one is.
    pub(crate) fn unreceived(&self) -> Option<(usize, usize, Lane, usize, String)> {
        let state = self.state();
        let mut left: Vec<_> = state.lanes.iter().filter(|(_, queue)| !queue.is_empty()).collect();
        left.sort_by_key(|((from, to, lane), _)| (*from, *to, *lane == Lane::Backward));
        let ((from, to, lane), queue) = left.first()?;
        let first = queue.front().map(|message| format!("{}{}", message.dtype, message.shape));
        Some((*from, *to, *lane, queue.len(), first.unwrap_or_default()))
    }
}
