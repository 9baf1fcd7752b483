//! Messages between ranks over TCP: a connection between any two, with a thread that reads it and one that writes it.
//!
//! The reader puts what comes into mailboxes, so that nobody's sending ever waits for a receiver; the writer has an unbounded queue, so that two ranks
//! that send to each other cannot block each other. Only readers declare a peer dead, after having read all it said: its last words count, not the
//! accident of which thread saw its end first.

mod frame;
mod hello;
mod meeting;

use std::io::{BufReader, BufWriter, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frame::Kind;
use meeting::{Connections, Meeting};

use super::Launch;
use super::inbox::{Inbox, lock};
use super::transport::{Channel, Interrupted, Message, Transport};
use crate::{Error, Result};

/// How long a rank that leaves waits for the last words of the others: a connection closed on unread words can take what was sent with it.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes that are read or written together, where messages are small.
const BLOCK: usize = 64 << 10;

/// What a writer is asked to send.
enum Outgoing {
    Message(Channel, Message),
    Failure(usize, String),
    Goodbye,
}

/// What the rank and its threads share.
struct Shared {
    rank: usize,
    inbox: Inbox,
    /// The writers' queues, by peer.
    outboxes: Vec<Option<Sender<Outgoing>>>,
    /// Held by who passes a failure on.
    failing: Mutex<()>,
    /// Threads that have not ended.
    running: Mutex<usize>,
    ended: Condvar,
}

impl Shared {
    /// Passes a failure on and records it, unless another one was first. In this order: once the rank knows it, it may say goodbye, and the others must
    /// have heard why.
    fn fail(&self, rank: usize, cause: &str) {
        let _turn = lock(&self.failing);
        if self.inbox.failure().is_none() {
            for outbox in self.outboxes.iter().flatten() {
                let _ = outbox.send(Outgoing::Failure(rank, cause.to_owned()));
            }
            self.inbox.fail(rank, cause);
        }
    }

    /// A peer that has left while it is needed is a failure that the others have not heard of.
    fn pass_on<T>(&self, result: std::result::Result<T, Interrupted>) -> std::result::Result<T, Interrupted> {
        if let Err(Interrupted::Failed { rank, cause }) = &result {
            self.fail(*rank, cause);
        }
        result
    }
}

/// Ranks that are processes of this host or of several, connected by TCP.
pub struct TcpTransport {
    shared: Arc<Shared>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl TcpTransport {
    /// Connects all ranks: rank 0 waits at the launch's address for the others, who call until it is there. `identity` must be the same text on all
    /// ranks (a hash of the configuration, say). Returns once this rank is connected to all others; nothing waits longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the ranks that did not come; [`Error::Mismatch`] with one that is of another protocol, world or run;
    /// [`Error::PeerFailed`] if one of them stopped; [`Error::Argument`] for an address or port that will not do. The operation is `connect`.
    pub fn connect(launch: &Launch, identity: &str, timeout: Duration) -> Result<Self> {
        let meeting = Meeting { launch, identity, timeout, deadline: Instant::now() + timeout };
        let connections = match (launch.rank, launch.world_size) {
            (_, 1) => vec![None],
            (0, _) => meeting.host(&meeting::listen(launch)?)?,
            _ => meeting.join()?,
        };
        Self::over(launch, connections)
    }

    /// Rank 0's [`connect`](Self::connect) on a listener that exists already, for a program that starts the other ranks itself and tells them its port.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn host(listener: &TcpListener, launch: &Launch, identity: &str, timeout: Duration) -> Result<Self> {
        let meeting = Meeting { launch, identity, timeout, deadline: Instant::now() + timeout };
        Self::over(launch, meeting.host(listener)?)
    }

    /// Starts the threads.
    fn over(launch: &Launch, connections: Connections) -> Result<Self> {
        let failed = |error: std::io::Error| Error::PeerFailed {
            op: "connect",
            group: "world",
            rank: launch.rank,
            peer: launch.rank,
            cause: format!("cannot start the threads of its connections: {error}"),
        };
        let (mut outboxes, mut ends) = (Vec::new(), Vec::new());
        for (peer, stream) in connections.into_iter().enumerate() {
            let Some(stream) = stream else {
                outboxes.push(None);
                continue;
            };
            stream.set_nodelay(true).map_err(failed)?;
            let (sender, receiver) = channel();
            outboxes.push(Some(sender));
            ends.push((peer, stream, receiver));
        }
        let shared = Arc::new(Shared {
            rank: launch.rank,
            inbox: Inbox::new(launch.world_size),
            outboxes,
            failing: Mutex::new(()),
            running: Mutex::new(0),
            ended: Condvar::new(),
        });
        let mut transport = Self { shared, streams: Vec::new(), threads: Vec::new() };
        for (peer, stream, outgoing) in ends {
            let (reader, writer) = (stream.try_clone().map_err(failed)?, stream.try_clone().map_err(failed)?);
            transport.streams.push(stream);
            transport.spawn("read", move |shared| read(shared, peer, reader)).map_err(failed)?;
            transport.spawn("write", move |_| write(&writer, outgoing)).map_err(failed)?;
        }
        Ok(transport)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            work(&shared);
            *lock(&shared.running) -= 1;
            shared.ended.notify_all();
        };
        *lock(&self.shared.running) += 1;
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(body);
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                *lock(&self.shared.running) -= 1;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Puts what comes from a peer where it belongs, until the peer leaves or is gone.
fn read(shared: &Shared, peer: usize, stream: TcpStream) {
    let mut stream = BufReader::with_capacity(BLOCK, stream);
    for number in 0.. {
        match frame::read(&mut stream, number) {
            Ok(Some((Kind::Message(channel), message))) => shared.inbox.arrive(peer, channel, message),
            Ok(Some((Kind::Failure, body))) => {
                let (rank, cause) = body.split_first_chunk().unwrap_or((&[0; 8], &[]));
                shared.fail(u64::from_le_bytes(*rank) as usize, &String::from_utf8_lossy(cause));
            }
            Ok(Some((Kind::Goodbye, _))) => return shared.inbox.leave(peer),
            Ok(None) => {
                return shared.fail(peer, "its connection ended without a goodbye: the process is gone");
            }
            Err(error) => return shared.fail(peer, &format!("its connection broke: {error}")),
        }
    }
}

/// Sends what a peer is to get, in order, until goodbye. An error is the reader's to explain.
fn write(stream: &TcpStream, outgoing: Receiver<Outgoing>) {
    let mut buffered = BufWriter::with_capacity(BLOCK, stream);
    let mut next = outgoing.recv().ok();
    let mut number = 0;
    while let Some(item) = next {
        let last = matches!(item, Outgoing::Goodbye);
        let written = match item {
            Outgoing::Message(channel, message) => {
                frame::write(&mut buffered, number, Kind::Message(channel), &message)
            }
            Outgoing::Failure(rank, cause) => {
                let body = [&(rank as u64).to_le_bytes(), cause.as_bytes()].concat();
                frame::write(&mut buffered, number, Kind::Failure, &body)
            }
            Outgoing::Goodbye => frame::write(&mut buffered, number, Kind::Goodbye, &[]),
        };
        number += 1;
        next = if last { None } else { outgoing.try_recv().ok() };
        let flushed = if next.is_none() { written.and_then(|()| buffered.flush()) } else { written };
        if last || flushed.is_err() {
            break;
        }
        next = next.or_else(|| outgoing.recv().ok());
    }
    // What is left in the buffer after an error must not be tried again when it is dropped.
    drop(buffered.into_parts());
    let _ = stream.shutdown(Shutdown::Write);
}

impl Transport for TcpTransport {
    fn rank(&self) -> usize {
        self.shared.rank
    }

    fn world_size(&self) -> usize {
        self.shared.outboxes.len()
    }

    fn send(&self, to: usize, channel: Channel, message: Message) -> std::result::Result<(), Interrupted> {
        self.shared.pass_on(self.shared.inbox.alive(to))?;
        match &self.shared.outboxes[to] {
            // A writer that has ended saw its connection break; the reader will say so, or the peer has left.
            Some(outbox) => drop(outbox.send(Outgoing::Message(channel, message))),
            None => self.shared.inbox.arrive(to, channel, Arc::unwrap_or_clone(message)),
        }
        Ok(())
    }

    fn recv(
        &self,
        from: usize,
        channel: Channel,
        timeout: Duration,
    ) -> std::result::Result<Vec<u8>, Interrupted> {
        self.shared.pass_on(self.shared.inbox.take(from, channel, timeout))
    }

    fn failure(&self) -> Option<(usize, String)> {
        self.shared.inbox.failure()
    }

    fn fail(&self, cause: &str) {
        self.shared.fail(self.shared.rank, cause);
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail("it panicked");
        }
        for outbox in self.shared.outboxes.iter().flatten() {
            let _ = outbox.send(Outgoing::Goodbye);
        }
        let deadline = Instant::now() + LINGER;
        let mut running = lock(&self.shared.running);
        while *running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            running = self.shared.ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(running);
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
