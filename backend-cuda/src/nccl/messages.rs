//! Point-to-point messages: a communicator of two ranks for each direction and lane.
//!
//! A send copies its data aside and hands the copy to the way's own thread, so that it waits for nobody, not even where the two ranks have yet to meet. A receive
//! is enqueued on the way's stream, and the rank's own stream waits for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use backend::process::{Channel, Interrupted};
use backend::{Backend, Class, DType, Error, Group, GroupKind, Lane, Result, Shape, Tensor, View};

use super::library::{Joined, Nccl, UniqueId};
use super::watch::{Call, Watch, lock};
use crate::backend::CudaBackend;
use crate::driver::{Event, Stream};
use crate::launch::at;
use crate::memory::CudaBuffer;

/// A copy of what is sent, there once the event has passed.
struct Staged {
    data: Tensor<CudaBuffer>,
    ready: Event,
}

/// Copies that are free, by receiver, type and length.
type Free = Arc<Mutex<HashMap<(usize, DType, usize), Vec<Tensor<CudaBuffer>>>>>;

/// A way out: its thread, and the queue to it.
struct Out {
    queue: Sender<Staged>,
    thread: JoinHandle<()>,
}

/// A way in.
#[derive(Clone)]
struct In {
    joined: Arc<Mutex<Joined>>,
    stream: Stream,
}

/// A way in, once both ends have met.
type Meeting = Arc<OnceLock<Result<In>>>;

/// What every way needs.
#[derive(Clone)]
struct Parts {
    backend: Arc<CudaBackend>,
    nccl: Arc<Nccl>,
    watch: Arc<Watch>,
}

/// The ways of one rank.
pub(crate) struct Messages {
    parts: Parts,
    out: Mutex<HashMap<(usize, Lane), Out>>,
    into: Mutex<HashMap<(usize, Lane), Meeting>>,
    free: Free,
}

impl Parts {
    fn call(&self, op: &'static str, peer: usize) -> Call {
        Call { op, group: Group::new(GroupKind::Pipeline, [self.watch.transport.rank(), peer]) }
    }

    fn event(&self) -> Result<Event> {
        Event::new().map_err(|failed| self.backend.device.failed(failed))
    }

    fn driver(&self, answer: crate::driver::Answer<()>) -> Result<()> {
        answer.map_err(|failed| self.backend.device.failed(failed))
    }

    /// Both ends meet: the sender, place 0, brings the id.
    fn join(&self, call: &Call, id: UniqueId, position: usize) -> Result<In> {
        self.backend.device.enter()?;
        let stream = Stream::new().map_err(|failed| self.backend.device.failed(failed))?;
        let joined = self.nccl.join(id, 2, position)?;
        let joined = Arc::new(Mutex::new(joined));
        self.watch.add(&joined);
        self.watch.check(call)?;
        Ok(In { joined, stream })
    }

    fn interrupted(&self, call: &Call, interrupted: Interrupted) -> Error {
        match interrupted {
            Interrupted::Silence => self.watch.timed_out(call),
            Interrupted::Failed { rank, cause } => self.watch.peer_failed(call, rank, cause),
        }
    }

    /// The thread of a way out: meets the receiver at the first message, then sends one after the other.
    fn send_all(&self, to: usize, lane: Lane, queue: &Receiver<Staged>, free: &Free) -> Result<()> {
        let call = self.call("send", to);
        let mut way = None;
        while let Ok(Staged { data, ready }) = queue.recv() {
            let In { joined, stream } = match &way {
                Some(way) => way,
                None => {
                    let id = self.nccl.unique_id()?;
                    let message = Arc::new(id.0.to_vec());
                    let sent = self.watch.transport.send(to, Channel::Lane(lane), message);
                    sent.map_err(|interrupted| self.interrupted(&call, interrupted))?;
                    way.insert(self.join(&call, id, 0)?)
                }
            };
            self.backend.device.enter()?;
            self.driver(stream.wait(&ready))?;
            lock(joined).send(1, at(data.view()), data.len(), data.dtype(), *stream)?;
            let done = Arc::new(self.event()?);
            self.driver(done.record(*stream))?;
            self.watch.follow(call.clone(), Arc::clone(&done));
            self.watch.wait(&call, &done)?;
            lock(free).entry((to, data.dtype(), data.len())).or_default().push(data);
        }
        Ok(())
    }
}

impl Messages {
    pub fn new(backend: Arc<CudaBackend>, nccl: Arc<Nccl>, watch: Arc<Watch>) -> Self {
        let parts = Parts { backend, nccl, watch };
        Self { parts, out: Mutex::default(), into: Mutex::default(), free: Arc::default() }
    }

    /// Copies for that many messages on their way at once.
    pub fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        let new =
            (0..messages).map(|_| self.parts.backend.alloc(Class::Workspace, dtype, Shape::new(&[len])));
        let new = new.collect::<Result<Vec<_>>>()?;
        lock(&self.free).entry((to, dtype, len)).or_default().extend(new);
        Ok(())
    }

    pub fn send(&self, to: usize, lane: Lane, data: View<'_, CudaBuffer>) -> Result<()> {
        let parts = &self.parts;
        parts.watch.check(&parts.call("send", to))?;
        let free = lock(&self.free).entry((to, data.dtype(), data.len())).or_default().pop();
        let staged = match free {
            Some(staged) => staged,
            None => parts.backend.alloc(Class::Workspace, data.dtype(), Shape::new(&[data.len()]))?,
        };
        parts.backend.copy(data.reshape([data.len()])?, staged.view())?;
        let ready = parts.event()?;
        parts.driver(ready.record(parts.backend.device.stream))?;
        let mut out = lock(&self.out);
        let way = match out.entry((to, lane)) {
            Entry::Occupied(way) => way.into_mut(),
            Entry::Vacant(place) => place.insert(self.way_out(to, lane)?),
        };
        // A thread that is gone has failed, and said so.
        let _ = way.queue.send(Staged { data: staged, ready });
        Ok(())
    }

    fn way_out(&self, to: usize, lane: Lane) -> Result<Out> {
        let (queue, receiver) = channel();
        let (parts, free) = (self.parts.clone(), Arc::clone(&self.free));
        let work = move || {
            if let Err(error) = parts.send_all(to, lane, &receiver, &free) {
                parts.watch.fail(error);
            }
        };
        let thread = std::thread::Builder::new().name(format!("send to {to}")).spawn(work);
        let thread =
            thread.map_err(|error| Error::Device { what: format!("no thread to send from: {error}") })?;
        Ok(Out { queue, thread })
    }

    pub fn recv(&self, from: usize, lane: Lane, data: View<'_, CudaBuffer>) -> Result<()> {
        let parts = &self.parts;
        let call = parts.call("recv", from);
        parts.watch.check(&call)?;
        let slot = Arc::clone(lock(&self.into).entry((from, lane)).or_default());
        let meet = || {
            let message = parts.watch.transport.recv(from, Channel::Lane(lane), parts.watch.timeout);
            let message = message.map_err(|interrupted| parts.interrupted(&call, interrupted))?;
            let id = message.first_chunk::<128>().map(|id| UniqueId(*id));
            let id = id.ok_or_else(|| Error::Device { what: format!("rank {from} sent no NCCL id") })?;
            parts.join(&call, id, 1)
        };
        let In { joined, stream } =
            slot.get_or_init(meet).clone().map_err(|error| parts.watch.fail(error))?;
        let device = &parts.backend.device;
        device.enter()?;
        let (ready, done) = (parts.event()?, Arc::new(parts.event()?));
        parts.driver(ready.record(device.stream))?;
        parts.driver(stream.wait(&ready))?;
        let received = lock(&joined).recv(0, at(data), data.len(), data.dtype(), stream);
        received.map_err(|error| parts.watch.fail(error))?;
        parts.driver(done.record(stream))?;
        parts.watch.follow(call, Arc::clone(&done));
        parts.driver(device.stream.wait(&done))
    }

    /// Waits for everything that was sent.
    pub fn finish(&self) {
        for (_, Out { queue, thread }) in lock(&self.out).drain() {
            drop(queue);
            // A thread that panicked has nothing more to send.
            let _ = thread.join();
        }
        if self.parts.backend.device.enter().is_ok() {
            for way in lock(&self.into).values().filter_map(|slot| slot.get()?.as_ref().ok()) {
                let _ = way.stream.synchronize();
            }
        }
    }
}
