//! The collectives over any transport, staged through host memory.
//!
//! A collective is an exchange in which every rank of the group sends every other one a message that begins with the *words* of its call, and compares
//! theirs with its own: ranks that call different things find out instead of mixing data. The payloads follow the words. An all-reduce takes a second
//! exchange, of the shares that each rank has reduced, unless the data are few. Long data go in pieces, and the next piece is on its way while this one
//! is reduced.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::call::{Collective, GRAIN, describe, lead, message_words, part, pieces, share, split};
use super::inbox::lock;
use super::transport::{Channel, Interrupted, Message, Track, Transport};
use crate::communicator::check_parts;
use crate::{
    Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Shape, Tensor, View,
};

/// Up to so many bytes, everybody gets everything and reduces all of it: one exchange less.
const FEW: usize = 32 << 10;

/// Bytes of a piece of long data. Small enough that the host memory of one is used again for the next, instead of being asked of the system and cleared by
/// it: that costs more than the copies. Large enough that a device's read-back is worth its wait.
const PIECE: usize = 1 << 20;

/// Staging memory for what others sent, one tensor a type; it grows to the largest piece and stays. Each track has its own.
type Staging<B> = HashMap<DType, Tensor<B>>;

/// One rank's end of a world of processes. See [`process`](crate::process).
pub struct ProcessCommunicator<B: Backend> {
    transport: Box<dyn Transport>,
    backend: Arc<B>,
    timeout: Duration,
    /// By track, held by its collective in progress.
    staging: [Mutex<Staging<B::Buffer>>; 2],
}

impl<B: Backend> ProcessCommunicator<B> {
    /// The rank at the end of this transport, on its backend. No wait lasts longer than `timeout`.
    pub fn new(transport: impl Transport, backend: Arc<B>, timeout: Duration) -> Self {
        Self { transport: Box::new(transport), backend, timeout, staging: Default::default() }
    }

    /// The rank's backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The rank's end of the ways to the others.
    pub fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// Checks the call, says it in words, and has `body` do it. A collective that has begun and does not end leaves the ranks out of step, whatever the
    /// reason: it fails the world.
    fn collective(
        &self,
        op: &'static str,
        group: &Group,
        what: std::fmt::Arguments<'_>,
        body: impl FnOnce(&Collective<'_>, &mut Staging<B::Buffer>) -> Result<()>,
    ) -> Result<()> {
        let (rank, world) = (self.transport.rank(), self.transport.world_size());
        let position = group.position(rank).filter(|_| group.ranks().iter().all(|&member| member < world));
        let position = position.ok_or_else(|| Error::Argument {
            op,
            name: "group",
            value: format!("{:?}", group.ranks()),
            range: "a group of this world's ranks that the calling rank belongs to",
        })?;
        let mut staging = lock(&self.staging[Track::of(group.kind()) as usize]);
        if let Some((rank, cause)) = self.transport.failure() {
            return Err(self.stopped(op, group.kind(), rank, cause));
        }
        let words = lead(&format!("{op}{what} in the {}", describe(group)));
        let result = body(&Collective { op, group, position, words }, &mut staging);
        self.out_of_step(result)
    }

    fn out_of_step<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            // Somebody else's failure is known already, under that one's name.
            if !matches!(error, Error::PeerFailed { .. }) {
                self.transport.fail(&error.to_string());
            }
        })
    }

    fn stopped(&self, op: &'static str, kind: GroupKind, peer: usize, cause: String) -> Error {
        Error::PeerFailed { op, group: kind.name(), rank: self.transport.rank(), peer, cause }
    }

    fn timed_out(&self, op: &'static str, kind: GroupKind, missing: Vec<usize>) -> Error {
        let seconds = self.timeout.as_secs();
        Error::Timeout { op, group: kind.name(), rank: self.transport.rank(), missing, seconds }
    }

    /// Sends a rank of the group a frame.
    fn post(&self, call: &Collective<'_>, channel: Channel, to: usize, frame: Message) -> Result<()> {
        self.transport.send(to, channel, frame).map_err(|interrupted| match interrupted {
            Interrupted::Failed { rank, cause } => self.stopped(call.op, call.group.kind(), rank, cause),
            Interrupted::Silence => self.timed_out(call.op, call.group.kind(), vec![to]),
        })
    }

    /// Waits for a message from everybody else, compares its words, and gives its payload to `each` with the sender's place.
    ///
    /// When it cannot go on it still looks at what has arrived: a rank that contradicts is a better explanation than one that gave up, and of several that
    /// are missing all are named.
    fn gather(
        &self,
        call: &Collective<'_>,
        channel: Channel,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut deadline = Instant::now() + self.timeout;
        let (mut missing, mut failed) = (Vec::new(), None);
        for (place, peer) in call.peers() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.transport.recv(peer, channel, left) {
                Ok(message) => {
                    if !message.starts_with(&call.words) {
                        return Err(self.mismatch(call, peer, split(&message).0));
                    }
                    if missing.is_empty() && failed.is_none() {
                        each(place, &message[call.words.len()..])?;
                    }
                }
                Err(interrupted) => {
                    deadline = Instant::now();
                    match interrupted {
                        Interrupted::Silence => missing.push(peer),
                        Interrupted::Failed { rank, cause } => failed = failed.or(Some((rank, cause))),
                    }
                }
            }
        }
        match (failed, missing.is_empty()) {
            (Some((rank, cause)), _) => Err(self.stopped(call.op, call.group.kind(), rank, cause)),
            (None, false) => Err(self.timed_out(call.op, call.group.kind(), missing)),
            (None, true) => Ok(()),
        }
    }

    fn mismatch(&self, call: &Collective<'_>, peer: usize, theirs: &str) -> Error {
        Error::Mismatch {
            op: call.op,
            group: call.group.kind().name(),
            rank: self.transport.rank(),
            mine: split(&call.words).0.to_owned(),
            peer,
            theirs: theirs.to_owned(),
        }
    }

    /// Has `begin` send each piece one ahead of `end`, which receives it.
    fn piecewise(
        &self,
        pieces: &[Range<usize>],
        begin: impl Fn(&Range<usize>) -> Result<()>,
        mut end: impl FnMut(&Range<usize>) -> Result<()>,
    ) -> Result<()> {
        pieces.first().map_or(Ok(()), &begin)?;
        for (i, piece) in pieces.iter().enumerate() {
            pieces.get(i + 1).map_or(Ok(()), &begin)?;
            end(piece)?;
        }
        Ok(())
    }

    /// A frame of the call with the view's elements as payload.
    fn framed(&self, call: &Collective<'_>, view: View<'_, B::Buffer>) -> Result<Message> {
        let mut frame = call.frame(view.bytes());
        self.backend.read(view, &mut frame[call.words.len()..])?;
        Ok(Arc::new(frame))
    }

    /// Receives from everybody else a view like `mine` and combines them all, in the order of the group, into `out`.
    fn gather_reduced(
        &self,
        call: &Collective<'_>,
        staging: &mut Staging<B::Buffer>,
        op: ReduceOp,
        mine: View<'_, B::Buffer>,
        out: View<'_, B::Buffer>,
    ) -> Result<()> {
        let (len, n) = (mine.len(), call.group.size());
        let stride = len.next_multiple_of(GRAIN);
        let staged = self.stage(staging, mine.dtype(), stride * (n - 1))?;
        let row = |place: usize| {
            let start = stride * (place - usize::from(place > call.position));
            part(staged.view(), &(start..start + len))
        };
        self.gather(call, call.first(), |place, payload| self.backend.write(row(place)?, payload))?;
        let input = |place: usize| if place == call.position { Ok(mine) } else { row(place) };
        let inputs = (0..n).map(input).collect::<Result<Vec<_>>>()?;
        self.backend.reduce(op, &inputs, &[out])
    }

    /// Staging memory of that type and at least that length.
    fn stage(&self, staging: &mut Staging<B::Buffer>, dtype: DType, len: usize) -> Result<Tensor<B::Buffer>> {
        if staging.get(&dtype).is_none_or(|tensor| tensor.len() < len) {
            // The old one goes first: its memory may serve the new one.
            staging.remove(&dtype);
            staging.insert(dtype, self.backend.alloc(Class::Workspace, dtype, Shape::new(&[len.max(1)]))?);
        }
        Ok(staging[&dtype].clone())
    }

    /// A piece of an all-reduce: sends every other rank its share of the piece, read in one go.
    fn scatter_shares(&self, call: &Collective<'_>, piece: View<'_, B::Buffer>) -> Result<()> {
        let (n, size) = (call.group.size(), piece.dtype().size());
        let mine = share(piece.len(), call.position, n);
        let start = if call.position == 0 { mine.end } else { 0 };
        let end = if call.position == n - 1 { mine.start } else { piece.len() };
        let mut host = vec![0; (end - start) * size];
        self.backend.read(part(piece, &(start..end))?, &mut host)?;
        for (place, peer) in call.peers() {
            let theirs = share(piece.len(), place, n);
            let bytes = &host[(theirs.start - start) * size..(theirs.end - start) * size];
            self.post(call, call.first(), peer, Arc::new([&call.words, bytes].concat()))?;
        }
        Ok(())
    }

    fn all_reduce_by_shares(
        &self,
        call: &Collective<'_>,
        staging: &mut Staging<B::Buffer>,
        op: ReduceOp,
        data: View<'_, B::Buffer>,
    ) -> Result<()> {
        let n = call.group.size();
        self.piecewise(
            &pieces(data.len(), PIECE / data.dtype().size()),
            |piece| self.scatter_shares(call, part(data, piece)?),
            |piece| {
                let piece = part(data, piece)?;
                let mine = part(piece, &share(piece.len(), call.position, n))?;
                self.gather_reduced(call, staging, op, mine, mine)?;
                let frame = self.framed(call, mine)?;
                for (_, peer) in call.peers() {
                    self.post(call, call.second(), peer, Arc::clone(&frame))?;
                }
                self.gather(call, call.second(), |place, payload| {
                    self.backend.write(part(piece, &share(piece.len(), place, n))?, payload)
                })
            },
        )
    }

    /// The pair of this rank and another, for errors.
    fn interrupted(&self, op: &'static str, peer: usize, interrupted: Interrupted) -> Error {
        match interrupted {
            Interrupted::Silence => self.timed_out(op, GroupKind::Pipeline, vec![peer]),
            Interrupted::Failed { rank, cause } => self.stopped(op, GroupKind::Pipeline, rank, cause),
        }
    }

    /// The other end of a message is a rank of the world, and nobody has failed.
    fn check_peer(&self, op: &'static str, name: &'static str, peer: usize) -> Result<()> {
        if peer >= self.transport.world_size() {
            return Err(Error::Argument { op, name, value: peer.to_string(), range: "a rank of the world" });
        }
        match self.transport.failure() {
            None => Ok(()),
            Some((rank, cause)) => Err(self.stopped(op, GroupKind::Pipeline, rank, cause)),
        }
    }
}

impl<B: Backend> Communicator<B::Buffer> for ProcessCommunicator<B> {
    fn rank(&self) -> usize {
        self.transport.rank()
    }

    fn world_size(&self) -> usize {
        self.transport.world_size()
    }

    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, B::Buffer>) -> Result<()> {
        if group.size() == 1 {
            return Ok(());
        }
        let data = data.reshape([data.len()])?;
        let what = format_args!(" ({op:?}) of {}[{}]", data.dtype(), data.len());
        self.collective("all_reduce", group, what, |call, staging| {
            if data.bytes() > FEW {
                return self.all_reduce_by_shares(call, staging, op, data);
            }
            let frame = self.framed(call, data)?;
            for (_, peer) in call.peers() {
                self.post(call, call.first(), peer, Arc::clone(&frame))?;
            }
            self.gather_reduced(call, staging, op, data, data)
        })
    }

    fn reduce_scatter(
        &self,
        group: &Group,
        src: View<'_, B::Buffer>,
        dst: View<'_, B::Buffer>,
    ) -> Result<()> {
        check_parts("reduce_scatter", "src", src, dst, group.size())?;
        let (src, dst) = (src.reshape([src.len()])?, dst.reshape([dst.len()])?);
        let len = dst.len();
        let what = format_args!(" of {}[{}]", src.dtype(), src.len());
        self.collective("reduce_scatter", group, what, |call, staging| {
            let of = |place: usize, piece: &Range<usize>| {
                part(src, &(place * len + piece.start..place * len + piece.end))
            };
            self.piecewise(
                &pieces(len, PIECE / src.dtype().size() / group.size()),
                |piece| {
                    for (place, peer) in call.peers() {
                        self.post(call, call.first(), peer, self.framed(call, of(place, piece)?)?)?;
                    }
                    Ok(())
                },
                |piece| {
                    let (mine, out) = (of(call.position, piece)?, part(dst, piece)?);
                    self.gather_reduced(call, staging, ReduceOp::Sum, mine, out)
                },
            )
        })
    }

    fn all_gather(&self, group: &Group, src: View<'_, B::Buffer>, dst: View<'_, B::Buffer>) -> Result<()> {
        check_parts("all_gather", "dst", dst, src, group.size())?;
        let (src, dst) = (src.reshape([src.len()])?, dst.reshape([dst.len()])?);
        let len = src.len();
        let what = format_args!(" of {}[{}]", src.dtype(), src.len());
        self.collective("all_gather", group, what, |call, _| {
            let own = part(dst, &(call.position * len..(call.position + 1) * len))?;
            if !own.same(&src) {
                self.backend.copy(src, own)?;
            }
            self.piecewise(
                &pieces(len, PIECE / src.dtype().size()),
                |piece| {
                    let frame = self.framed(call, part(src, piece)?)?;
                    let mut peers = call.peers();
                    peers.try_for_each(|(_, peer)| self.post(call, call.first(), peer, Arc::clone(&frame)))
                },
                |piece| {
                    self.gather(call, call.first(), |place, payload| {
                        let range = place * len + piece.start..place * len + piece.end;
                        self.backend.write(part(dst, &range)?, payload)
                    })
                },
            )
        })
    }

    fn broadcast(&self, group: &Group, root: usize, data: View<'_, B::Buffer>) -> Result<()> {
        let from = group.position(root).ok_or_else(|| Error::Argument {
            op: "broadcast",
            name: "root",
            value: root.to_string(),
            range: "a rank of the group",
        })?;
        let data = data.reshape([data.len()])?;
        let what = format_args!(" of {}[{}] (root {root})", data.dtype(), data.len());
        self.collective("broadcast", group, what, |call, _| {
            if group.size() == 1 {
                return Ok(());
            }
            self.piecewise(
                &pieces(data.len(), PIECE / data.dtype().size()),
                |piece| {
                    let frame = match call.position == from {
                        true => self.framed(call, part(data, piece)?)?,
                        false => Arc::new(call.words.clone()),
                    };
                    let mut peers = call.peers();
                    peers.try_for_each(|(_, peer)| self.post(call, call.first(), peer, Arc::clone(&frame)))
                },
                |piece| {
                    self.gather(call, call.first(), |place, payload| match place == from {
                        true => self.backend.write(part(data, piece)?, payload),
                        false => Ok(()),
                    })
                },
            )
        })
    }

    fn send(&self, to: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        self.check_peer("send", "to", to)?;
        let words = message_words(&format!("a message of {}{}", data.dtype(), data.shape()), data);
        let data = data.reshape([data.len()])?;
        for piece in pieces(data.len(), PIECE / data.dtype().size()) {
            let piece = part(data, &piece)?;
            let mut message = vec![0; words.len() + piece.bytes()];
            message[..words.len()].copy_from_slice(&words);
            self.backend.read(piece, &mut message[words.len()..])?;
            let sent = self.transport.send(to, Channel::Lane(lane), Arc::new(message));
            sent.map_err(|interrupted| self.interrupted("send", to, interrupted))?;
        }
        Ok(())
    }

    fn recv(&self, from: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        self.check_peer("recv", "from", from)?;
        let flat = data.reshape([data.len()])?;
        let mine = message_words("", data);
        let mut receive = |piece: Range<usize>| {
            let received = self.transport.recv(from, Channel::Lane(lane), self.timeout);
            let message = received.map_err(|interrupted| self.interrupted("recv", from, interrupted))?;
            // The words before the numbers are for people: the sender may see another shape of as many elements.
            match split(&message) {
                (_, rest) if rest.starts_with(&mine[4..]) => {
                    self.backend.write(part(flat, &piece)?, &rest[mine.len() - 4..])
                }
                (theirs, _) => Err(Error::Mismatch {
                    op: "recv",
                    group: GroupKind::Pipeline.name(),
                    rank: self.transport.rank(),
                    mine: format!("room for {}{}", data.dtype(), data.shape()),
                    peer: from,
                    theirs: theirs.to_owned(),
                }),
            }
        };
        let mut pieces = pieces(data.len(), PIECE / data.dtype().size()).into_iter();
        self.out_of_step(pieces.try_for_each(&mut receive))
    }

    fn barrier(&self, group: &Group) -> Result<()> {
        self.collective("barrier", group, format_args!(""), |call, _| {
            let frame = Arc::new(call.words.clone());
            for (_, peer) in call.peers() {
                self.post(call, call.first(), peer, Arc::clone(&frame))?;
            }
            self.gather(call, call.first(), |_, _| Ok(()))
        })
    }

    fn fail(&self, cause: &str) {
        self.transport.fail(cause);
    }
}
