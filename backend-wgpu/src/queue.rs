//! The thread that owns a device's queue: it takes commands in order, gathers kernels into batches, submits, and waits for what is read.
//!
//! Submitting and polling from one thread is a necessity (wgpu-core fails an assertion when one thread polls while another submits) and a convenience: the
//! order of the channel is the order of the device.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use backend::{KernelTime, Result};

use crate::compile::Promise;
use crate::device::{Failure, timed_out};
use crate::matmul::{Choices, Contest};
use crate::memory::Memory;
use crate::preprocess::MAX_BINDINGS;
use crate::profile::Profiler;

/// Bytes that a kernel's parameters may have.
pub(crate) const MAX_PARAMS: usize = 128;
/// Distance of two kernels' parameters: the portable alignment of dynamic offsets.
const STRIDE: usize = 256;
/// Kernels of one submission at the most. A submission costs about as much as five kernels, so that this many make it cheap without leaving the device idle.
pub(crate) const BATCH: usize = 128;
/// Host writes up to this ride in the batch; longer ones are submitted by themselves.
const SMALL_WRITE: usize = 64 << 10;
/// Host writes of one batch.
const STAGING: usize = 1 << 20;
/// Bytes moved at once between host and device.
const PIECE: usize = 32 << 20;
/// Submissions under way before the owner waits: what wgpu keeps for each until then is bounded.
const IN_FLIGHT: usize = 4;
/// How long a batch waits for more when the channel is empty.
const LINGER: Duration = Duration::from_micros(100);
/// Bind groups kept.
const GROUPS: usize = 16 << 10;

/// A window of device memory, as a kernel is given it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub memory: Arc<Memory>,
    pub offset: u64,
    pub size: u64,
}

impl Window {
    fn entry(&self, binding: usize) -> wgpu::BindGroupEntry<'_> {
        wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &self.memory.raw,
                offset: self.offset,
                size: wgpu::BufferSize::new(self.size),
            }),
        }
    }
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

/// A step of the batch that is being gathered.
enum Step {
    Launch { pipeline: Promise, group: wgpu::BindGroup, offset: u32, groups: [u32; 3] },
    Copy { staged: u64, memory: Arc<Memory>, offset: u64, bytes: u64 },
}

/// Layout, and the memory, offset and size of each binding.
type GroupKey = (u64, [(u64, u64, u64); MAX_BINDINGS]);

/// The state of the thread.
pub(crate) struct Owner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    failure: Arc<Failure>,
    timeout: Duration,
    uniforms: wgpu::Buffer,
    uniform_group: wgpu::BindGroup,
    staging: wgpu::Buffer,
    steps: Vec<Step>,
    launches: usize,
    params: Vec<u8>,
    staged: Vec<u8>,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    readback: Option<wgpu::Buffer>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    profiler: Option<Profiler>,
    /// Where the outcome of contests is kept.
    pub choices: Option<Arc<Choices>>,
}

impl Owner {
    pub fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        uniform_layout: &wgpu::BindGroupLayout,
        failure: Arc<Failure>,
        timeout: Duration,
    ) -> Self {
        let buffer = |label, size: usize, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: size as u64,
                usage: usage | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let uniforms = buffer("parameters", BATCH * STRIDE, wgpu::BufferUsages::UNIFORM);
        let staging = buffer("staging", STAGING, wgpu::BufferUsages::COPY_SRC);
        let uniform_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("parameters"),
            layout: uniform_layout,
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &uniforms,
                    offset: 0,
                    size: wgpu::BufferSize::new(MAX_PARAMS as u64),
                }),
            }],
        });
        Self {
            device,
            queue,
            failure,
            timeout,
            uniforms,
            uniform_group,
            staging,
            steps: Vec::new(),
            launches: 0,
            params: Vec::new(),
            staged: Vec::new(),
            groups: HashMap::new(),
            readback: None,
            in_flight: VecDeque::new(),
            profiler: None,
            choices: None,
        }
    }

    /// From now on measures each kernel.
    pub fn start_profile(&mut self) {
        self.profiler = Some(Profiler::new(&self.device, self.queue.get_timestamp_period()));
    }

    /// Takes commands until every rank is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        let failure = Arc::clone(&self.failure);
        let body = AssertUnwindSafe(|| {
            while let Some(command) = self.next(commands) {
                self.take(command);
            }
            self.flush();
            let _ = self.wait(None);
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
        if !self.steps.is_empty() {
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
                let waited = self.wait(None);
                drop(
                    reply.send(waited.map(|()| self.profiler.as_mut().map_or_else(Vec::new, Profiler::take))),
                );
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
                drop(reply.send(self.wait(None)));
            }
            (Command::Release { reply }, None) => {
                self.flush();
                let waited = self.wait(None);
                self.groups.clear();
                self.readback = None;
                drop(reply.send(waited));
            }
        }
    }

    fn launch(&mut self, launch: Launch) {
        if self.launches == BATCH {
            self.flush();
        }
        let pipeline = match launch.pipeline.wait() {
            Ok(pipeline) => pipeline,
            Err(what) => return self.failure.set(what.clone()),
        };
        let mut key = (pipeline.layout.id, [(0, 0, 0); MAX_BINDINGS]);
        for (slot, window) in key.1.iter_mut().zip(&launch.windows) {
            *slot = (window.memory.id, window.offset, window.size);
        }
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        let group = self.groups.entry(key).or_insert_with(|| {
            let entries: Vec<_> = launch.windows.iter().enumerate().map(|(i, w)| w.entry(i)).collect();
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.layout.raw,
                entries: &entries,
            })
        });
        let offset = self.params.len() as u32;
        self.params.extend_from_slice(&launch.params);
        self.params.resize(offset as usize + STRIDE, 0);
        let group = group.clone();
        self.steps.push(Step::Launch { pipeline: launch.pipeline, group, offset, groups: launch.groups });
        self.launches += 1;
    }

    fn write(&mut self, memory: Arc<Memory>, offset: u64, data: Vec<u8>) {
        if data.len() <= SMALL_WRITE {
            if self.staged.len() + data.len() > STAGING {
                self.flush();
            }
            let staged = self.staged.len() as u64;
            self.staged.extend_from_slice(&data);
            self.steps.push(Step::Copy { staged, memory, offset, bytes: data.len() as u64 });
            return;
        }
        self.flush();
        for (i, piece) in data.chunks(PIECE).enumerate() {
            self.queue.write_buffer(&memory.raw, offset + (i * PIECE) as u64, piece);
            // A submission is what makes wgpu let go of a piece's copy.
            self.submit(None);
        }
    }

    /// Submits the batch.
    fn flush(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        if !self.params.is_empty() {
            self.queue.write_buffer(&self.uniforms, 0, &self.params);
        }
        if !self.staged.is_empty() {
            self.queue.write_buffer(&self.staging, 0, &self.staged);
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut steps = self.steps.iter().peekable();
        let mut timed = Vec::new();
        while let Some(step) = steps.peek() {
            if let Step::Copy { staged, memory, offset, bytes } = step {
                encoder.copy_buffer_to_buffer(&self.staging, *staged, &memory.raw, *offset, *bytes);
                steps.next();
                continue;
            }
            // One pass for a run of kernels; where each is measured, a pass for each.
            let timestamp_writes = self.profiler.as_ref().map(|profiler| profiler.writes(timed.len()));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            while let Some(Step::Launch { pipeline, group, offset, groups: [x, y, z] }) =
                steps.next_if(|step| matches!(step, Step::Launch { .. }))
            {
                let Some(Ok(pipeline)) = pipeline.get() else { continue };
                pass.set_pipeline(&pipeline.raw);
                pass.set_bind_group(0, group, &[]);
                pass.set_bind_group(1, &self.uniform_group, &[*offset]);
                pass.dispatch_workgroups(*x, *y, *z);
                if self.profiler.is_some() {
                    timed.push(pipeline.name.clone());
                    break;
                }
            }
        }
        if let Some(profiler) = &self.profiler {
            profiler.resolve(&mut encoder, timed.len());
        }
        self.steps.clear();
        self.params.clear();
        self.staged.clear();
        self.launches = 0;
        self.submit(Some(encoder.finish()));
        if let Some(mut profiler) = self.profiler.take() {
            if let Err(what) = profiler.collect(&timed, || self.wait(None).is_ok()) {
                self.failure.set(what);
            }
            self.profiler = Some(profiler);
        }
    }

    /// Runs the winner of a contest, which is held first if it was not.
    fn contest(&mut self, contest: &Contest) {
        let Some(choices) = self.choices.clone() else { return };
        let winner = choices.winner(contest, |launches| {
            self.flush();
            self.wait(None).ok()?;
            let start = Instant::now();
            launches.iter().for_each(|launch| self.launch(launch.clone()));
            self.flush();
            self.wait(None).ok()?;
            Some(start.elapsed())
        });
        for launch in contest.launches(winner) {
            self.launch(launch.clone());
        }
    }

    fn submit(&mut self, commands: Option<wgpu::CommandBuffer>) {
        let index = self.queue.submit(commands);
        self.in_flight.push_back(index);
        if self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            // A failure is kept for whoever reads next.
            let _ = self.wait(oldest);
        }
    }

    /// Waits for that submission, or for all.
    fn wait(&mut self, index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        if index.is_none() {
            self.in_flight.clear();
        }
        let poll = wgpu::PollType::Wait { submission_index: index, timeout: Some(self.timeout) };
        if let Err(error) = self.device.poll(poll) {
            self.failure.set(match error {
                wgpu::PollError::Timeout => timed_out(self.timeout),
                error => error.to_string(),
            });
        }
        self.failure.get().map_or(Ok(()), Err)
    }

    fn read(&mut self, memory: &Memory, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        self.flush();
        let mut data = Vec::with_capacity(bytes);
        for first in (0..bytes).step_by(PIECE) {
            let piece = PIECE.min(bytes - first) as u64;
            let readback = match self.readback.take() {
                Some(buffer) if buffer.size() >= piece => buffer,
                _ => self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("readback"),
                    size: piece.next_power_of_two(),
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                }),
            };
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&memory.raw, offset + first as u64, &readback, 0, piece);
            self.submit(Some(encoder.finish()));
            let slice = readback.slice(..piece);
            let failure = Arc::clone(&self.failure);
            slice.map_async(wgpu::MapMode::Read, move |mapped| {
                if let Err(error) = mapped {
                    failure
                        .set(format!("its memory cannot be read: {error}; restart from the last checkpoint"));
                }
            });
            self.wait(None)?;
            match slice.get_mapped_range() {
                Ok(range) => data.extend_from_slice(&range),
                Err(error) => self.failure.set(format!("its memory cannot be read: {error}")),
            }
            readback.unmap();
            self.readback = Some(readback);
            if let Some(error) = self.failure.get() {
                return Err(error);
            }
        }
        Ok(data)
    }
}
