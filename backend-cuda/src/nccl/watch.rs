//! The watch over what is under way: one thread a rank.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use backend::process::Transport;
use backend::{Error, Group, Result};

use super::library::Joined;
use crate::device::Device;
use crate::driver::Event;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(5);

/// A call that was enqueued, for the errors.
#[derive(Clone)]
pub(crate) struct Call {
    pub op: &'static str,
    pub group: Group,
}

struct Pending {
    call: Call,
    done: Arc<Event>,
    deadline: Instant,
}

/// What the watch and the rank share.
pub(crate) struct Watch {
    pub transport: Box<dyn Transport>,
    pub device: Arc<Device>,
    pub timeout: Duration,
    pending: Mutex<VecDeque<Pending>>,
    communicators: Mutex<Vec<Weak<Mutex<Joined>>>>,
    failure: Mutex<Option<Error>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Begins it; it ends when the last other share of it goes.
    ///
    /// # Errors
    /// No thread.
    pub fn start(transport: Box<dyn Transport>, device: Arc<Device>, timeout: Duration) -> Result<Arc<Self>> {
        let watch = Arc::new(Self {
            transport,
            device,
            timeout,
            pending: Mutex::default(),
            communicators: Mutex::default(),
            failure: Mutex::default(),
        });
        let weak = Arc::downgrade(&watch);
        let look = move || {
            while let Some(watch) = weak.upgrade() {
                watch.look();
                drop(watch);
                std::thread::sleep(PERIOD);
            }
        };
        let thread = std::thread::Builder::new().name("nccl watch".to_owned()).spawn(look);
        thread
            .map(|_| watch)
            .map_err(|error| Error::Device { what: format!("no thread for the NCCL watch: {error}") })
    }

    /// A communicator to ask and, if need be, to abort.
    pub fn add(&self, joined: &Arc<Mutex<Joined>>) {
        lock(&self.communicators).push(Arc::downgrade(joined));
    }

    /// What was enqueued, done when the event has passed.
    pub fn follow(&self, call: Call, done: Arc<Event>) {
        lock(&self.pending).push_back(Pending { call, done, deadline: Instant::now() + self.timeout });
    }

    /// The rank can go on; otherwise the failure in the words of this call.
    pub fn check(&self, call: &Call) -> Result<()> {
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        match self.transport.failure() {
            None => Ok(()),
            Some((peer, cause)) => Err(self.peer_failed(call, peer, cause)),
        }
    }

    /// Waits on the host until the event has passed.
    ///
    /// # Errors
    /// The rank's failure, which the watch finds.
    pub fn wait(&self, call: &Call, done: &Event) -> Result<()> {
        self.device.enter()?;
        let mut pause = Duration::from_micros(10);
        loop {
            match done.passed() {
                Ok(true) => return self.check_own(),
                Ok(false) => {}
                Err(failed) => return Err(self.device.failed(failed)),
            }
            self.check(call)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// An abort lets events pass: what they stood for is not done.
    fn check_own(&self) -> Result<()> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    pub fn peer_failed(&self, call: &Call, peer: usize, cause: String) -> Error {
        let (op, group) = (call.op, call.group.kind().name());
        Error::PeerFailed { op, group, rank: self.transport.rank(), peer, cause }
    }

    pub fn timed_out(&self, call: &Call) -> Error {
        let rank = self.transport.rank();
        let missing = call.group.ranks().iter().copied().filter(|member| *member != rank).collect();
        Error::Timeout {
            op: call.op,
            group: call.group.kind().name(),
            rank,
            missing,
            seconds: self.timeout.as_secs(),
        }
    }

    /// The rank has failed: everybody hears of it, and nothing of NCCL goes on.
    pub fn fail(&self, error: Error) -> Error {
        let first = lock(&self.failure).get_or_insert(error).clone();
        if !matches!(first, Error::PeerFailed { .. }) {
            self.transport.fail(&first.to_string());
        }
        self.device.stop(first.clone());
        for joined in lock(&self.communicators).drain(..).filter_map(|joined| joined.upgrade()) {
            lock(&joined).abort();
        }
        first
    }

    fn look(&self) {
        if lock(&self.failure).is_some() || self.device.enter().is_err() {
            return;
        }
        let (first, overdue) = {
            let mut pending = lock(&self.pending);
            pending.retain(|pending| !pending.done.passed().unwrap_or(true));
            let overdue =
                pending.iter().find(|pending| pending.deadline < Instant::now()).map(|p| p.call.clone());
            (pending.front().map(|pending| pending.call.clone()), overdue)
        };
        // Without anything under way nobody waits, and the next call finds the failure.
        let Some(call) = first else { return };
        if let Some((peer, cause)) = self.transport.failure() {
            self.fail(self.peer_failed(&call, peer, cause));
        } else if let Some(call) = overdue {
            self.fail(self.timed_out(&call));
        } else {
            let communicators =
                lock(&self.communicators).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
            if let Some(error) = communicators.iter().find_map(|joined| lock(joined).async_error().err()) {
                let what = format!("{} in the {} group: {error}", call.op, call.group.kind().name());
                self.fail(Error::Device { what });
            }
        }
    }
}
