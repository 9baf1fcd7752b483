//! The collectives.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backend::process::{Channel, Interrupted, Track, Transport};
use backend::{
    Backend, Class, Communicator, DType, Error, Group, Lane, ReduceOp, Result, Shape, Tensor, View,
};

use super::library::{Joined, Nccl, Operands, UniqueId};
use super::messages::Messages;
use super::watch::{Call, Watch, lock};
use crate::backend::CudaBackend;
use crate::driver::{Event, Stream};
use crate::launch::at;
use crate::libraries::Settings;
use crate::memory::CudaBuffer;

type Shared<T> = Arc<OnceLock<Result<T>>>;

/// One rank's end of a world of GPUs. See the module.
pub struct NcclCommunicator {
    backend: Arc<CudaBackend>,
    nccl: Arc<Nccl>,
    watch: Arc<Watch>,
    messages: Messages,
    /// By track.
    streams: [Stream; 2],
    groups: Mutex<HashMap<Group, Shared<Arc<Mutex<Joined>>>>>,
    invariant: bool,
}

/// What a group's first rank tells the others: the id, then whom it is for.
fn invitation(id: UniqueId, group: &Group) -> Vec<u8> {
    [&id.0[..], format!("{} {:?}", group.kind().name(), group.ranks()).as_bytes()].concat()
}

/// Elements that the rank at `position` of `n` works on, of `len`.
fn share_of(len: usize, position: usize, n: usize) -> Range<usize> {
    let at = |i: usize| (len as u128 * i as u128 / n as u128) as usize;
    at(position)..at(position + 1)
}

fn flat(view: View<'_, CudaBuffer>) -> Result<View<'_, CudaBuffer>> {
    view.reshape([view.len()])
}

impl NcclCommunicator {
    /// The rank at the end of this transport, on its GPU. No wait lasts longer than `timeout`. With `invariant`, sums have the contract's tree.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without NCCL.
    pub fn new(
        transport: impl Transport,
        backend: Arc<CudaBackend>,
        timeout: Duration,
        invariant: bool,
        settings: &Settings,
    ) -> Result<Self> {
        let nccl = Nccl::load(settings)?;
        backend.device.enter()?;
        let stream = || Stream::new().map_err(|failed| backend.device.failed(failed));
        let streams = [stream()?, stream()?];
        let watch = Watch::start(Box::new(transport), Arc::clone(&backend.device), timeout)?;
        let messages = Messages::new(Arc::clone(&backend), Arc::clone(&nccl), Arc::clone(&watch));
        Ok(Self { backend, nccl, watch, messages, streams, groups: Mutex::default(), invariant })
    }

    /// The rank's backend.
    pub fn backend(&self) -> &CudaBackend {
        &self.backend
    }

    fn call(&self, op: &'static str, group: &Group) -> Result<(Call, usize)> {
        let (rank, world) = (self.rank(), self.world_size());
        let position = group.position(rank).filter(|_| group.ranks().iter().all(|&member| member < world));
        let position = position.ok_or_else(|| Error::Argument {
            op,
            name: "group",
            value: format!("{:?}", group.ranks()),
            range: "a group of this world's ranks that the calling rank belongs to",
        })?;
        let call = Call { op, group: group.clone() };
        self.watch.check(&call)?;
        Ok((call, position))
    }

    /// The group's communicator, made now if this is its first call.
    fn joined(&self, call: &Call, position: usize) -> Result<Arc<Mutex<Joined>>> {
        let slot = Arc::clone(lock(&self.groups).entry(call.group.clone()).or_default());
        slot.get_or_init(|| self.join(call, position)).clone().map_err(|error| self.watch.fail(error))
    }

    fn join(&self, call: &Call, position: usize) -> Result<Arc<Mutex<Joined>>> {
        let group = &call.group;
        let channel = Channel::First(Track::of(group.kind()));
        let id = match position {
            0 => {
                let id = self.nccl.unique_id()?;
                for &member in &group.ranks()[1..] {
                    let message = Arc::new(invitation(id, group));
                    self.watch
                        .transport
                        .send(member, channel, message)
                        .map_err(|i| self.interrupted(call, i))?;
                }
                id
            }
            _ => {
                let first = group.ranks()[0];
                let message = self.watch.transport.recv(first, channel, self.watch.timeout);
                let message = message.map_err(|i| self.interrupted(call, i))?;
                let id = message.first_chunk::<128>().map(|id| UniqueId(*id));
                id.filter(|id| invitation(*id, group) == message).ok_or_else(|| Error::Mismatch {
                    op: call.op,
                    group: group.kind().name(),
                    rank: self.rank(),
                    mine: format!("a call in the group {:?}", group.ranks()),
                    peer: first,
                    theirs: String::from_utf8_lossy(message.get(128..).unwrap_or_default()).into_owned(),
                })?
            }
        };
        self.backend.device.enter()?;
        let joined = Arc::new(Mutex::new(self.nccl.join(id, group.size(), position)?));
        self.watch.add(&joined);
        Ok(joined)
    }

    fn interrupted(&self, call: &Call, interrupted: Interrupted) -> Error {
        match interrupted {
            Interrupted::Silence => self.watch.timed_out(call),
            Interrupted::Failed { rank, cause } => self.watch.peer_failed(call, rank, cause),
        }
    }

    /// Enqueues `work` on the track's stream, after what the rank has enqueued and before what comes next.
    fn together(
        &self,
        (call, position): (Call, usize),
        work: impl FnOnce(&Joined, Stream) -> Result<()>,
    ) -> Result<()> {
        let joined = self.joined(&call, position)?;
        let device = &self.backend.device;
        let track = Track::of(call.group.kind());
        let stream = self.streams[track as usize];
        device.enter()?;
        let driver = |answer: crate::driver::Answer<()>| answer.map_err(|failed| device.failed(failed));
        let event = || Event::new().map_err(|failed| device.failed(failed));
        let (ready, done) = (event()?, Arc::new(event()?));
        driver(ready.record(device.stream))?;
        driver(stream.wait(&ready))?;
        work(&lock(&joined), stream).map_err(|error| self.watch.fail(error))?;
        driver(done.record(stream))?;
        self.watch.follow(call.clone(), Arc::clone(&done));
        match track {
            Track::Main => driver(device.stream.wait(&done)),
            Track::Data => self.watch.wait(&call, &done),
        }
    }

    /// A tensor for what others send.
    fn staging(&self, dtype: DType, len: usize) -> Result<Tensor<CudaBuffer>> {
        self.backend.alloc(Class::Workspace, dtype, Shape::new(&[len]))
    }

    /// `dst` = the ranks' elements `range(position)` of `src`, combined in the contract's tree. `src` and `dst` may overlap: all is sent before anything is
    /// written, and `dst` only by the rank's own stream.
    fn exchange(
        &self,
        (call, position): (Call, usize),
        op: ReduceOp,
        src: View<'_, CudaBuffer>,
        range: impl Fn(usize) -> Range<usize>,
        dst: View<'_, CudaBuffer>,
    ) -> Result<()> {
        let (src, n, mine) = (flat(src)?, call.group.size(), range(position));
        let staged = (0..n).map(|_| self.staging(src.dtype(), mine.len())).collect::<Result<Vec<_>>>()?;
        let own = src.rows(mine.start, mine.len())?;
        self.together((call, position), |joined, stream| {
            self.nccl.grouped(|| {
                for peer in (0..n).filter(|peer| *peer != position) {
                    let theirs = range(peer);
                    if !theirs.is_empty() {
                        let from = at(src.rows(theirs.start, theirs.len())?);
                        joined.send(peer, from, theirs.len(), src.dtype(), stream)?;
                    }
                    if !mine.is_empty() {
                        joined.recv(peer, at(staged[peer].view()), mine.len(), src.dtype(), stream)?;
                    }
                }
                Ok(())
            })
        })?;
        if mine.is_empty() {
            return Ok(());
        }
        let view = |(i, staged)| if i == position { own } else { Tensor::view(staged) };
        let inputs = staged.iter().enumerate().map(view).collect::<Vec<_>>();
        self.backend.reduce(op, &inputs, &[flat(dst)?])
    }

    /// Every rank's `range` of `data`, from the rank at that place, to all.
    fn gather(
        &self,
        (call, position): (Call, usize),
        data: View<'_, CudaBuffer>,
        range: impl Fn(usize) -> Range<usize>,
    ) -> Result<()> {
        let (data, n) = (flat(data)?, call.group.size());
        self.together((call, position), |joined, stream| {
            self.nccl.grouped(|| {
                let mine = range(position);
                for peer in (0..n).filter(|peer| *peer != position) {
                    let theirs = range(peer);
                    if !mine.is_empty() {
                        let from = at(data.rows(mine.start, mine.len())?);
                        joined.send(peer, from, mine.len(), data.dtype(), stream)?;
                    }
                    if !theirs.is_empty() {
                        let to = at(data.rows(theirs.start, theirs.len())?);
                        joined.recv(peer, to, theirs.len(), data.dtype(), stream)?;
                    }
                }
                Ok(())
            })
        })
    }
}

/// `whole` is `n` times `one`, of its type.
fn check_parts(
    op: &'static str,
    tensor: &'static str,
    whole: View<'_, CudaBuffer>,
    one: View<'_, CudaBuffer>,
    n: usize,
) -> Result<()> {
    if whole.dtype() != one.dtype() {
        return Err(Error::DType { op, tensor, expected: one.dtype(), got: whole.dtype() });
    }
    match whole.len() == n * one.len() {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor,
            expected: format!("{n} x {} elements", one.len()),
            got: whole.shape(),
        }),
    }
}

impl Communicator<CudaBuffer> for NcclCommunicator {
    fn rank(&self) -> usize {
        self.watch.transport.rank()
    }

    fn world_size(&self) -> usize {
        self.watch.transport.world_size()
    }

    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, CudaBuffer>) -> Result<()> {
        let (call, position) = self.call("all_reduce", group)?;
        if group.size() == 1 || data.is_empty() {
            return Ok(());
        }
        if !self.invariant && op == ReduceOp::Sum {
            let operands = Operands { from: at(data), to: at(data), count: data.len(), dtype: data.dtype() };
            return self.together((call, position), |joined, stream| joined.all_reduce(operands, stream));
        }
        let range = |place| share_of(data.len(), place, group.size());
        let mine = range(position);
        let dst = flat(data)?.rows(mine.start, mine.len())?;
        self.exchange((call.clone(), position), op, data, range, dst)?;
        self.gather((call, position), data, range)
    }

    fn reduce_scatter(
        &self,
        group: &Group,
        src: View<'_, CudaBuffer>,
        dst: View<'_, CudaBuffer>,
    ) -> Result<()> {
        let (call, position) = self.call("reduce_scatter", group)?;
        check_parts("reduce_scatter", "src", src, dst, group.size())?;
        let part = dst.len();
        if part == 0 {
            return Ok(());
        }
        if group.size() == 1 {
            return if src.same(&dst) { Ok(()) } else { self.backend.copy(flat(src)?, flat(dst)?) };
        }
        if !self.invariant {
            let operands = Operands { from: at(src), to: at(dst), count: part, dtype: src.dtype() };
            return self.together((call, position), |joined, stream| joined.reduce_scatter(operands, stream));
        }
        self.exchange((call, position), ReduceOp::Sum, src, |place| place * part..(place + 1) * part, dst)
    }

    fn all_gather(&self, group: &Group, src: View<'_, CudaBuffer>, dst: View<'_, CudaBuffer>) -> Result<()> {
        let (call, position) = self.call("all_gather", group)?;
        check_parts("all_gather", "dst", dst, src, group.size())?;
        if src.is_empty() {
            return Ok(());
        }
        let operands = Operands { from: at(src), to: at(dst), count: src.len(), dtype: src.dtype() };
        self.together((call, position), |joined, stream| joined.all_gather(operands, stream))
    }

    fn broadcast(&self, group: &Group, root: usize, data: View<'_, CudaBuffer>) -> Result<()> {
        let (call, position) = self.call("broadcast", group)?;
        let from = group.position(root).ok_or_else(|| Error::Argument {
            op: "broadcast",
            name: "root",
            value: root.to_string(),
            range: "a rank of the group",
        })?;
        if group.size() == 1 || data.is_empty() {
            return Ok(());
        }
        let operands = Operands { from: at(data), to: at(data), count: data.len(), dtype: data.dtype() };
        self.together((call, position), |joined, stream| joined.broadcast(from, operands, stream))
    }

    fn send(&self, to: usize, lane: Lane, data: View<'_, CudaBuffer>) -> Result<()> {
        self.messages.send(to, lane, data)
    }

    fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        self.messages.reserve(to, messages, dtype, len)
    }

    fn recv(&self, from: usize, lane: Lane, data: View<'_, CudaBuffer>) -> Result<()> {
        self.messages.recv(from, lane, data)
    }

    fn barrier(&self, group: &Group) -> Result<()> {
        let (call, position) = self.call("barrier", group)?;
        if group.size() == 1 {
            return Ok(());
        }
        let one = self.staging(DType::F32, 1)?;
        self.backend.fill(one.view(), 1.0)?;
        let operands = Operands { from: at(one.view()), to: at(one.view()), count: 1, dtype: DType::F32 };
        self.together((call, position), |joined, stream| joined.all_reduce(operands, stream))?;
        // On the host: whoever is behind the barrier may do what no stream orders.
        self.backend.sync()
    }

    fn fail(&self, cause: &str) {
        self.watch.transport.fail(cause);
        self.watch.fail(Error::Device { what: cause.to_owned() });
    }
}

impl Drop for NcclCommunicator {
    fn drop(&mut self) {
        // Nothing is under way when the communicators go; after a failure they are gone already.
        self.messages.finish();
        if self.backend.device.enter().is_ok() {
            let _ = self.streams.iter().try_for_each(|stream| stream.synchronize());
        }
    }
}
