//! Messages between ranks over MPI, for clusters whose network is best reached that way.
//!
//! One thread does everything with MPI, from its initialisation to its end, so that any MPI with `MPI_THREAD_FUNNELED` will do. It takes outgoing messages
//! from a queue, sends them with `MPI_Isend`, and while they are on their way, as always, receives whatever arrives into the mailboxes: a rank can only be
//! stuck in sending if a receiver's thread is. Nobody can be told by MPI that a process has died; the launcher (`mpirun`) sees that, and ends the job.
//!
//! MPI comes up once in a process: there is one [`MpiTransport`] in its life.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::datatype::Equivalence;
use mpi::request::{LocalScope, RequestCollection, multiple_scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, Destination as _, Source as _};

use super::inbox::{Inbox, lock};
use super::transport::{Channel, Interrupted, Message, Track, Transport};
use crate::{Error, Result};

/// Longest piece in which a message is sent: MPI counts in 31 bits.
const FRAGMENT: usize = 32 << 20;

/// Batches of messages that may be under way at a time, each begun while the one before was stuck. One more is kept for the word of a failure.
const BATCHES: usize = 8;

/// How long a rank that fails stays to see its last words off.
const LINGER: Duration = Duration::from_secs(2);

/// Looks for messages without a pause, before the thread begins to sleep between them.
const LOOKS: u32 = 200;

/// Between two looks, while the rank waits for a message and while it does not.
const NAPS: [Duration; 2] = [Duration::from_micros(50), Duration::from_micros(500)];

/// Tags: a channel's index twice, and one more if another piece of the message follows.
const FAILURE: i32 = 2 * Channel::ALL.len() as i32;
const GOODBYE: i32 = FAILURE + 1;

/// Bytes for a rank, under a tag.
struct Parcel {
    to: usize,
    tag: i32,
    bytes: Message,
    range: std::ops::Range<usize>,
}

/// What the thread is asked to do.
enum Task {
    Send(Vec<Parcel>),
    /// Send before everything else.
    Fail(Vec<Parcel>),
    /// The rank has begun to wait.
    Wake,
    /// Send these goodbyes, and end.
    Leave(Vec<Parcel>),
}

/// What the rank and the thread share.
struct Shared {
    rank: usize,
    world_size: usize,
    inbox: Inbox,
    tasks: Sender<Task>,
    /// Held by who passes a failure on.
    failing: Mutex<()>,
    /// Whether the rank waits for a message.
    waiting: AtomicBool,
    /// Set by the thread when it has done with MPI, or can do no more: whether it has ended MPI.
    ended: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Shared {
    fn others(&self) -> impl Iterator<Item = usize> {
        let rank = self.rank;
        (0..self.world_size).filter(move |&other| other != rank)
    }

    /// The same bytes for all others.
    fn to_others(&self, tag: i32, bytes: Vec<u8>) -> Vec<Parcel> {
        let (range, bytes) = (0..bytes.len(), Arc::new(bytes));
        self.others().map(|to| Parcel { to, tag, bytes: Arc::clone(&bytes), range: range.clone() }).collect()
    }

    /// Passes a failure on and records it, unless another one was first; in this order, so that no goodbye is before it.
    fn fail(&self, rank: usize, cause: &str) {
        let _turn = lock(&self.failing);
        if self.inbox.failure().is_none() {
            let body = [&(rank as u64).to_le_bytes(), cause.as_bytes()].concat();
            let _ = self.tasks.send(Task::Fail(self.to_others(FAILURE, body)));
            self.inbox.fail(rank, cause);
        }
    }

    fn pass_on<T>(&self, result: std::result::Result<T, Interrupted>) -> std::result::Result<T, Interrupted> {
        if let Err(Interrupted::Failed { rank, cause }) = &result {
            self.fail(*rank, cause);
        }
        result
    }
}

/// Ranks that `mpirun` has started.
pub struct MpiTransport {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl MpiTransport {
    /// Brings MPI up; rank and world are its own. `identity` must be the same text on all ranks. Waits for the others' words no longer than `timeout`, which
    /// is also how long the last goodbye is waited for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if MPI is up already, or cannot be used in a program with threads; [`Error::Timeout`], [`Error::Mismatch`],
    /// [`Error::PeerFailed`] if the others do not come or are of another run.
    pub fn connect(identity: &str, timeout: Duration) -> Result<Self> {
        let (answer, answered) = sync_channel(1);
        let thread = std::thread::Builder::new().name("mpi".to_owned()).spawn(move || run(&answer, timeout));
        let thread = thread.map_err(|error| unsupported(format!("no thread for MPI: {error}")))?;
        let shared = answered.recv().map_err(|_| unsupported("MPI did not come up".to_owned()))??;
        let transport = Self { shared, thread: Some(thread) };
        transport.agree(identity, timeout)?;
        Ok(transport)
    }

    /// Compares the run's identity with all others.
    fn agree(&self, identity: &str, timeout: Duration) -> Result<()> {
        const OP: &str = "connect";
        const GROUP: &str = "world";
        let rank = self.shared.rank;
        let failed = |interrupted, peer| match interrupted {
            Interrupted::Failed { rank: peer, cause } => {
                Error::PeerFailed { op: OP, group: GROUP, rank, peer, cause }
            }
            Interrupted::Silence => {
                let seconds = timeout.as_secs();
                Error::Timeout { op: OP, group: GROUP, rank, missing: vec![peer], seconds }
            }
        };
        let word = Arc::new(identity.as_bytes().to_vec());
        for peer in self.shared.others() {
            self.send(peer, Channel::First(Track::Main), Arc::clone(&word))
                .map_err(|error| failed(error, peer))?;
        }
        for peer in self.shared.others() {
            let theirs =
                self.recv(peer, Channel::First(Track::Main), timeout).map_err(|error| failed(error, peer))?;
            if theirs != *word {
                let (mine, theirs) =
                    (format!("run {identity:?}"), format!("run {:?}", String::from_utf8_lossy(&theirs)));
                let error = Error::Mismatch { op: OP, group: GROUP, rank, mine, peer, theirs };
                self.fail(&error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { op: "connect", what }
}

/// The thread: all there is to do with MPI.
fn run(answer: &SyncSender<Result<Arc<Shared>>>, timeout: Duration) {
    let Some((universe, level)) = mpi::initialize_with_threading(Threading::Funneled) else {
        let _ =
            answer.send(Err(unsupported("MPI is up already; a process has one MPI transport".to_owned())));
        return;
    };
    if level < Threading::Funneled {
        let what = "this MPI allows no threads; use one with MPI_THREAD_FUNNELED".to_owned();
        let _ = answer.send(Err(unsupported(what)));
        return;
    }
    let world = universe.world();
    let (rank, world_size) = (world.rank() as usize, world.size() as usize);
    let (sender, tasks) = channel();
    let shared = Arc::new(Shared {
        rank,
        world_size,
        inbox: Inbox::new(world_size),
        tasks: sender,
        failing: Mutex::new(()),
        waiting: AtomicBool::new(false),
        ended: Mutex::new(None),
        changed: Condvar::new(),
    });
    let _ = answer.send(Ok(Arc::clone(&shared)));
    let _last = Last(Arc::clone(&shared));
    let mut post = Post {
        shared,
        world,
        tasks,
        partial: HashMap::new(),
        outgoing: Vec::new(),
        urgent: Vec::new(),
        leaving: None,
        timeout,
    };
    post.work();
    // All have said goodbye, so all of them come to this.
    let shared = Arc::clone(&post.shared);
    drop(post);
    drop(universe);
    end(&shared, true);
}

fn end(shared: &Shared, finalized: bool) {
    lock(&shared.ended).get_or_insert(finalized);
    shared.changed.notify_all();
}

/// Lets nobody wait for a thread that panicked.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inbox.fail(self.0.rank, "its MPI thread panicked");
            end(&self.0, false);
        }
    }
}

/// The thread's own things.
struct Post {
    shared: Arc<Shared>,
    world: SimpleCommunicator,
    tasks: Receiver<Task>,
    /// Messages of which pieces are missing, by sender and channel.
    partial: HashMap<(usize, usize), Vec<u8>>,
    outgoing: Vec<Parcel>,
    urgent: Vec<Parcel>,
    /// Since when the rank wants to leave.
    leaving: Option<Instant>,
    timeout: Duration,
}

impl Post {
    /// Sends and receives until everybody has said goodbye.
    fn work(&mut self) {
        let mut idle = 0;
        loop {
            let received = self.receive();
            self.take_tasks(None);
            if !self.urgent.is_empty() {
                let batch = std::mem::take(&mut self.urgent);
                self.send(&batch, 0);
            } else if !self.outgoing.is_empty() {
                let batch = std::mem::take(&mut self.outgoing);
                self.send(&batch, 0);
            } else if received {
                idle = 0;
            } else if self.is_over() {
                return;
            } else {
                idle += 1;
                self.pause(idle);
            }
        }
    }

    /// Sends a batch, and receives meanwhile. What is to be sent while it is stuck is sent from here.
    fn send(&mut self, batch: &[Parcel], depth: usize) {
        multiple_scope(batch.len(), |scope: &LocalScope<'_>, requests: &mut RequestCollection<'_, [u8]>| {
            for parcel in batch {
                let to = self.world.process_at_rank(parcel.to as i32);
                let bytes = &parcel.bytes[parcel.range.clone()];
                requests.add(to.immediate_send_with_tag(scope, bytes, parcel.tag));
            }
            let (mut done, mut idle) = (Vec::new(), 0);
            while requests.incomplete() > 0 {
                requests.test_some(&mut done);
                let busy = self.receive() || !done.is_empty();
                self.take_tasks(None);
                let next = match (self.urgent.is_empty(), self.outgoing.is_empty()) {
                    (false, _) if depth <= BATCHES => std::mem::take(&mut self.urgent),
                    (true, false) if depth < BATCHES => std::mem::take(&mut self.outgoing),
                    _ => Vec::new(),
                };
                if !next.is_empty() {
                    self.send(&next, depth + 1);
                } else if busy {
                    idle = 0;
                } else {
                    // MPI may still read what it has not sent, so this never returns.
                    if self.is_overdue() {
                        self.abandon();
                    }
                    idle += 1;
                    self.pause(idle);
                }
            }
        });
    }

    /// Receives all that has arrived; whether there was any.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Some((message, status)) = self.world.any_process().immediate_matched_probe() {
            any = true;
            let mut bytes = vec![0; status.count(u8::equivalent_datatype()) as usize];
            message.matched_receive_into(&mut bytes[..]);
            self.deliver(status.source_rank() as usize, status.tag(), bytes);
        }
        any
    }

    fn deliver(&mut self, from: usize, tag: i32, bytes: Vec<u8>) {
        match tag {
            FAILURE => {
                let (rank, cause) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
                self.shared.fail(u64::from_le_bytes(*rank) as usize, &String::from_utf8_lossy(cause));
            }
            GOODBYE => self.shared.inbox.leave(from),
            _ => {
                let index = tag as usize / 2;
                let before = self.partial.remove(&(from, index));
                let message = match before {
                    None => bytes,
                    Some(mut before) => {
                        before.extend_from_slice(&bytes);
                        before
                    }
                };
                match (tag % 2, Channel::ALL.get(index)) {
                    (1, _) => drop(self.partial.insert((from, index), message)),
                    (_, Some(&channel)) => self.shared.inbox.arrive(from, channel, message),
                    (_, None) => {
                        self.shared.fail(from, &format!("it sent a message with the unknown tag {tag}"))
                    }
                }
            }
        }
    }

    /// Takes what is asked, after waiting for it as long as that.
    fn take_tasks(&mut self, wait: Option<Duration>) {
        let mut next = match wait {
            None => self.tasks.try_recv().ok(),
            Some(wait) => self.tasks.recv_timeout(wait).ok(),
        };
        while let Some(task) = next {
            match task {
                Task::Send(parcels) => self.outgoing.extend(parcels),
                Task::Fail(parcels) => self.urgent.extend(parcels),
                Task::Wake => {}
                Task::Leave(parcels) => {
                    self.outgoing.extend(parcels);
                    self.leaving = Some(Instant::now());
                }
            }
            next = self.tasks.try_recv().ok();
        }
    }

    fn pause(&mut self, idle: u32) {
        if idle < LOOKS {
            std::thread::yield_now();
        } else {
            let waiting = self.shared.waiting.load(Ordering::Relaxed) || self.leaving.is_some();
            self.take_tasks(Some(if waiting { NAPS[0] } else { NAPS[1] }));
        }
    }

    /// Whether this rank and all others have said goodbye. Gives up in the end.
    fn is_over(&self) -> bool {
        if self.leaving.is_none() {
            return false;
        }
        let here = self.shared.others().any(|other| !self.shared.inbox.has_left(other));
        if here && self.is_overdue() {
            self.abandon();
        }
        !here
    }

    /// Whether leaving takes too long.
    fn is_overdue(&self) -> bool {
        let patience = if self.shared.inbox.failure().is_some() { LINGER } else { self.timeout };
        self.leaving.is_some_and(|since| since.elapsed() > patience)
    }

    /// Lets the rank go, and stays: MPI cannot be ended without the others, and takes back no message. The launcher cleans up.
    fn abandon(&self) -> ! {
        end(&self.shared, false);
        loop {
            std::thread::park();
        }
    }
}

impl Transport for MpiTransport {
    fn rank(&self) -> usize {
        self.shared.rank
    }

    fn world_size(&self) -> usize {
        self.shared.world_size
    }

    fn send(&self, to: usize, channel: Channel, message: Message) -> std::result::Result<(), Interrupted> {
        self.shared.pass_on(self.shared.inbox.alive(to))?;
        if to == self.shared.rank {
            self.shared.inbox.arrive(to, channel, Arc::unwrap_or_clone(message));
            return Ok(());
        }
        let fragments = message.len().div_ceil(FRAGMENT).max(1);
        let parcel = |i: usize| {
            let range = i * FRAGMENT..message.len().min((i + 1) * FRAGMENT);
            let tag = 2 * channel.index() as i32 + i32::from(i + 1 < fragments);
            Parcel { to, tag, bytes: Arc::clone(&message), range }
        };
        let _ = self.shared.tasks.send(Task::Send((0..fragments).map(parcel).collect()));
        Ok(())
    }

    fn recv(
        &self,
        from: usize,
        channel: Channel,
        timeout: Duration,
    ) -> std::result::Result<Vec<u8>, Interrupted> {
        match self.shared.inbox.take(from, channel, Duration::ZERO) {
            Err(Interrupted::Silence) if !timeout.is_zero() => {}
            result => return self.shared.pass_on(result),
        }
        self.shared.waiting.store(true, Ordering::Relaxed);
        let _ = self.shared.tasks.send(Task::Wake);
        let result = self.shared.inbox.take(from, channel, timeout);
        self.shared.waiting.store(false, Ordering::Relaxed);
        self.shared.pass_on(result)
    }

    fn failure(&self) -> Option<(usize, String)> {
        self.shared.inbox.failure()
    }

    fn fail(&self, cause: &str) {
        self.shared.fail(self.shared.rank, cause);
    }
}

impl Drop for MpiTransport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail("it panicked");
        }
        let _ = self.shared.tasks.send(Task::Leave(self.shared.to_others(GOODBYE, Vec::new())));
        // The thread gives up in time: this does not wait without end.
        let mut ended = lock(&self.shared.ended);
        while ended.is_none() {
            ended = self.shared.changed.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        let finalized = *ended == Some(true);
        drop(ended);
        if let Some(thread) = self.thread.take().filter(|_| finalized) {
            let _ = thread.join();
        }
    }
}
