//! The thread that owns a device's queue: it takes commands in order, gathers kernels into batches, submits, and waits for what is read.
//!
//! Submitting and polling from one thread is a necessity (wgpu-core fails an assertion when one thread polls while another submits) and a convenience: the
//! order of the channel is the order of the device. Who executes the batches, wgpu or Dawn, is the [`Executor`]'s matter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use backend::{KernelTime, Result};

use crate::compile::Promise;
use crate::device::Failure;
use crate::matmul::{Choices, Contest};
use crate::memory::Memory;

/// Bytes that a kernel's parameters may have.
pub(crate) const MAX_PARAMS: usize = 128;
/// Distance of two kernels' parameters: the portable alignment of dynamic offsets.
pub(crate) const STRIDE: usize = 256;
/// Kernels of one submission at the most. A submission costs about as much as five kernels, so that this many make it cheap without leaving the device idle.
pub(crate) const BATCH: usize = 128;
/// Host writes up to this ride in the batch; longer ones are submitted by themselves.
const SMALL_WRITE: usize = 64 << 10;
/// Host writes of one batch.
pub(crate) const STAGING: usize = 1 << 20;
/// Bytes moved at once between host and device.
const PIECE: usize = 32 << 20;
/// How long a batch waits for more when the channel is empty.
const LINGER: Duration = Duration::from_micros(100);

/// A window of device memory, as a kernel is given it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub memory: Arc<Memory>,
    pub offset: u64,
    pub size: u64,
}

/// What a rank hands over.
pub(crate) enum Command {
    /// Run a kernel.
    Launch(Box<Launch>),
    /// Run one of several kernels that do the same, and find out which is the fastest if nobody knows yet.
    Contest(Box<Contest>),
    /// What was measured since it was last asked for.
    Profile { reply: Sender<Result<Vec<KernelTime>>> },
    /// Write host memory.
    Write { memory: Arc<Memory>, offset: u64, data: Vec<u8> },
    /// Read device memory.
    Read { memory: Arc<Memory>, offset: u64, bytes: usize, reply: Sender<Result<Vec<u8>>> },
    /// Wait for all before.
    Sync { reply: Sender<Result<()>> },
    /// Drop what is kept for reuse.
    Release { reply: Sender<Result<()>> },
}

/// A kernel with its operands.
#[derive(Clone)]
pub(crate) struct Launch {
    pub pipeline: Promise,
    pub windows: Vec<Window>,
    pub params: [u8; MAX_PARAMS],
    pub groups: [u32; 3],
}

/// A step of a batch.
pub(crate) enum Step {
    /// Run a kernel, which is compiled, and whose parameters lie at `offset` of the batch's.
    Launch { kernel: Promise, windows: Vec<Window>, offset: u32, groups: [u32; 3] },
    /// Write what lies at `staged` of the batch's host memory.
    Copy { staged: u64, memory: Arc<Memory>, offset: u64, bytes: u64 },
}

/// What is submitted at once, in order.
#[derive(Default)]
pub(crate) struct Batch {
    pub steps: Vec<Step>,
    /// Parameters, each kernel's [`STRIDE`] after the one before; at most [`BATCH`] of them.
    pub params: Vec<u8>,
    /// Host memory, at most [`STAGING`] bytes.
    pub staged: Vec<u8>,
}

/// What executes on a device, in order. The first thing that goes wrong is the device's [`Failure`].
pub(crate) trait Executor: Send {
    /// Submits the batch.
    fn submit(&mut self, batch: &Batch);
    /// Writes host memory.
    fn write(&mut self, memory: &Memory, offset: u64, data: &[u8]);
    /// Waits until all is done, or for the timeout.
    fn wait(&mut self) -> Result<()>;
    /// Appends device memory, as it is after all before.
    fn read(&mut self, memory: &Memory, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()>;
    /// Drops what is kept for reuse.
    fn release(&mut self);
    /// What was measured since it was last asked for.
    fn profile(&mut self) -> Vec<KernelTime> {
        Vec::new()
    }
}

/// The state of the thread.
pub(crate) struct Owner<E> {
    executor: E,
    failure: Arc<Failure>,
    batch: Batch,
    launches: usize,
    /// Where the outcome of contests is kept.
    choices: Arc<Choices>,
}

impl<E: Executor> Owner<E> {
    pub fn new(executor: E, failure: Arc<Failure>, choices: Arc<Choices>) -> Self {
        Self { executor, failure, batch: Batch::default(), launches: 0, choices }
    }

    /// Takes commands until every rank is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        let failure = Arc::clone(&self.failure);
        let body = AssertUnwindSafe(|| {
            while let Some(command) = self.next(commands) {
                self.take(command);
            }
            self.flush();
            let _ = self.executor.wait();
        });
        if let Err(panic) = catch_unwind(body) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            failure.set(format!(
                "wgpu stopped: {text}; restart from the last checkpoint, and report it if it happens again"
            ));
        }
    }

    /// The next command; a batch that nobody adds to for a moment is submitted meanwhile.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        match commands.try_recv() {
            Ok(command) => return Some(command),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        if !self.batch.steps.is_empty() {
            match commands.recv_timeout(LINGER) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.flush(),
            }
        }
        commands.recv().ok()
    }

    fn take(&mut self, command: Command) {
        // A device that has failed is left alone: its commands are dropped, its questions answered with the failure.
        match (command, self.failure.get()) {
            (Command::Launch(launch), None) => self.launch(*launch),
            (Command::Write { memory, offset, data }, None) => self.write(memory, offset, data),
            (Command::Contest(contest), None) => self.contest(&contest),
            (Command::Launch(_) | Command::Contest(_) | Command::Write { .. }, Some(_)) => {}
            (Command::Profile { reply }, Some(error)) => drop(reply.send(Err(error))),
            (Command::Profile { reply }, None) => {
                self.flush();
                let waited = self.executor.wait();
                drop(reply.send(waited.map(|()| self.executor.profile())));
            }
            (Command::Read { reply, .. }, Some(error)) => drop(reply.send(Err(error))),
            (Command::Sync { reply } | Command::Release { reply }, Some(error)) => {
                drop(reply.send(Err(error)));
            }
            (Command::Read { memory, offset, bytes, reply }, None) => {
                drop(reply.send(self.read(&memory, offset, bytes)));
            }
            (Command::Sync { reply }, None) => {
                self.flush();
                drop(reply.send(self.executor.wait()));
            }
            (Command::Release { reply }, None) => {
                self.flush();
                let waited = self.executor.wait();
                self.executor.release();
                drop(reply.send(waited));
            }
        }
    }

    fn launch(&mut self, launch: Launch) {
        if self.launches == BATCH {
            self.flush();
        }
        let Launch { pipeline: kernel, windows, params, groups } = launch;
        if let Err(what) = kernel.wait() {
            return self.failure.set(what.clone());
        }
        let offset = self.batch.params.len() as u32;
        self.batch.params.extend_from_slice(&params);
        self.batch.params.resize(offset as usize + STRIDE, 0);
        self.batch.steps.push(Step::Launch { kernel, windows, offset, groups });
        self.launches += 1;
    }

    /// Runs the winner of a contest, which is held first if it was not.
    fn contest(&mut self, contest: &Contest) {
        let choices = Arc::clone(&self.choices);
        let winner = choices.winner(contest, |launches| {
            self.flush();
            self.executor.wait().ok()?;
            let start = Instant::now();
            launches.iter().for_each(|launch| self.launch(launch.clone()));
            self.flush();
            self.executor.wait().ok()?;
            Some(start.elapsed())
        });
        for launch in contest.launches(winner) {
            self.launch(launch.clone());
        }
    }

    fn write(&mut self, memory: Arc<Memory>, offset: u64, data: Vec<u8>) {
        if data.len() <= SMALL_WRITE {
            if self.batch.staged.len() + data.len() > STAGING {
                self.flush();
            }
            let staged = self.batch.staged.len() as u64;
            self.batch.staged.extend_from_slice(&data);
            self.batch.steps.push(Step::Copy { staged, memory, offset, bytes: data.len() as u64 });
            return;
        }
        self.flush();
        for (i, piece) in data.chunks(PIECE).enumerate() {
            self.executor.write(&memory, offset + (i * PIECE) as u64, piece);
        }
    }

    /// Submits the batch.
    fn flush(&mut self) {
        if self.batch.steps.is_empty() {
            return;
        }
        self.executor.submit(&self.batch);
        self.batch.steps.clear();
        self.batch.params.clear();
        self.batch.staged.clear();
        self.launches = 0;
    }

    fn read(&mut self, memory: &Memory, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        self.flush();
        let mut data = Vec::with_capacity(bytes);
        for first in (0..bytes).step_by(PIECE) {
            let piece = PIECE.min(bytes - first) as u64;
            self.executor.read(memory, offset + first as u64, piece, &mut data)?;
        }
        Ok(data)
    }
}
