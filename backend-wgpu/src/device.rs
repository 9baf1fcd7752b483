//! An open device: its limits, its pipelines, the thread that owns its queue, and the first thing that went wrong on it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::{Error, Result};

use crate::adapter::{self, AdapterInfo, Choice};
use crate::compile::Compiler;
use crate::dawn::{Connection, DawnQueue};
use crate::gpu::{Gpu, RawBuffer};
use crate::matmul::Choices;
use crate::native::Native;
use crate::queue::{Command, Executor, Launch, Owner};
use crate::setup::Setup;

/// The first failure of a device; every later read and sync returns it.
#[derive(Debug, Default)]
pub(crate) struct Failure(OnceLock<Error>);

impl Failure {
    pub fn set(&self, what: impl Into<String>) {
        let _ = self.0.set(Error::Device { what: what.into() });
    }

    pub fn get(&self) -> Option<Error> {
        self.0.get().cloned()
    }
}

/// What a device allows.
pub(crate) struct Most {
    /// Bytes of a buffer.
    pub buffer: u64,
    /// Bytes of a window on one that a kernel sees.
    pub binding: u64,
    /// Workgroups of a dispatch in one dimension.
    pub groups: u32,
}

/// What the ranks on one adapter share.
pub(crate) struct Device {
    pub info: AdapterInfo,
    pub max_buffer: u64,
    pub max_binding: u64,
    pub max_groups: u32,
    pub compiler: Arc<Compiler>,
    /// Whether each kernel's time is taken.
    pub profiled: bool,
    /// Which kernels multiply matrices.
    pub choices: Arc<Choices>,
    failure: Arc<Failure>,
    pub timeout: Duration,
    sender: Option<SyncSender<Command>>,
    owner: Option<JoinHandle<()>>,
    /// Kernels handed to the owner so far.
    launches: AtomicU64,
}

/// Commands on their way to the owner thread before a rank has to wait.
const CHANNEL: usize = 4096;

impl Device {
    /// Opens the preferred acceptable adapter with all that it can do.
    pub fn open(setup: &Setup) -> Result<Arc<Self>> {
        let failure = Arc::new(Failure::default());
        match &setup.choice {
            Choice::Dawn(dawn) => {
                let (info, most, connection) = Connection::open(dawn, &failure, setup.timeout)?;
                let queue = DawnQueue::new(&connection, &failure);
                Self::start(setup, info, setup.trial.lower(most), Gpu::Dawn(connection), queue, failure)
            }
            Choice::Hardware | Choice::Any { .. } => {
                let (info, adapter) = adapter::choose(&setup.choice)?;
                let limits = setup.trial.limits(adapter.limits());
                let most = Most {
                    buffer: adapter::max_buffer(&limits),
                    binding: adapter::max_binding(&limits),
                    groups: limits.max_compute_workgroups_per_dimension,
                };
                let (native, queue) = Native::open(setup, &info, &adapter, limits, &failure)?;
                Self::start(setup, info, most, Gpu::Native(native), queue, failure)
            }
        }
    }

    fn start(
        setup: &Setup,
        mut info: AdapterInfo,
        most: Most,
        gpu: Gpu,
        queue: impl Executor + 'static,
        failure: Arc<Failure>,
    ) -> Result<Arc<Self>> {
        let sources = setup.trial.sources()?;
        info.software &= !setup.trial.as_hardware;
        let (sender, receiver) = mpsc::sync_channel(CHANNEL);
        let choices = Arc::new(Choices::new(setup, &info));
        let owner = Owner::new(queue, Arc::clone(&failure), Arc::clone(&choices));
        let owner =
            std::thread::Builder::new()
                .name("wgpu".to_owned())
                .spawn(move || owner.run(&receiver))
                .map_err(|error| Error::NoDevice { what: format!("no thread for the device: {error}") })?;
        Ok(Arc::new(Self {
            max_buffer: most.buffer,
            max_binding: most.binding,
            max_groups: most.groups,
            compiler: Compiler::new(gpu, sources, setup.say),
            profiled: setup.profile && info.timestamps,
            info,
            choices,
            failure,
            timeout: setup.timeout,
            sender: Some(sender),
            owner: Some(owner),
            launches: AtomicU64::new(0),
        }))
    }

    /// What went wrong on the device, if something did.
    pub fn failure(&self) -> Option<Error> {
        self.failure.get()
    }

    /// Hands a command to the owner thread. A thread that is gone has left its reason in `failure`, which the next read returns.
    pub fn send(&self, command: Command) {
        if let Some(sender) = &self.sender
            && sender.send(command).is_err()
        {
            self.failure.set("the thread that owns the device has ended; restart from the last checkpoint");
        }
    }

    /// Hands a kernel to the owner thread.
    pub fn launch(&self, launch: Launch) {
        self.launches.fetch_add(1, Relaxed);
        self.send(Command::Launch(Box::new(launch)));
    }

    /// Kernels launched so far, by all ranks.
    pub fn launches(&self) -> u64 {
        self.launches.load(Relaxed)
    }

    /// Hands over a command that is answered, and waits for the answer.
    pub fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply));
        self.compiler.settle();
        // The owner gives up first; what it does before it comes to this command may take as long again.
        match answer.recv_timeout(self.timeout.saturating_mul(2)) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.failure.set(timed_out(self.timeout));
                self.compiler.gpu.give_up();
                Err(self.failed())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.failed()),
        }
    }

    fn failed(&self) -> Error {
        let gone = || Error::Device { what: "the thread that owns it has ended".to_owned() };
        self.failure.get().unwrap_or_else(gone)
    }

    /// Lets go of what the owner thread keeps for reuse.
    pub fn release(&self) {
        let _ = self.ask(|reply| Command::Release { reply });
    }

    /// A new piece of device memory; the error is what else than memory was missing.
    pub fn buffer(&self, size: u64) -> std::result::Result<RawBuffer, Option<String>> {
        self.compiler.gpu.buffer(size)
    }

    /// The child, if that is where the device is.
    #[cfg(test)]
    pub fn dawn(&self) -> Option<&Connection> {
        match &self.compiler.gpu {
            Gpu::Native(_) => None,
            Gpu::Dawn(connection) => Some(connection),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // With its sender gone the owner drains the channel, waits for the device and ends.
        self.sender = None;
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

/// The words for a wait that was given up.
pub(crate) fn timed_out(timeout: Duration) -> String {
    format!(
        "no answer within {} s; restart from the last checkpoint, and where the device is merely slow allow a longer timeout",
        timeout.as_secs_f32()
    )
}
