//! An open device: its limits, its pipelines, the thread that owns its queue, and the first thing that went wrong on it.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::{Error, Result};

use crate::adapter::{self, AdapterInfo};
use crate::compile::Compiler;
use crate::matmul::Choices;
use crate::queue::{Command, Owner};
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
    timeout: Duration,
    sender: Option<SyncSender<Command>>,
    owner: Option<JoinHandle<()>>,
}

/// Commands on their way to the owner thread before a rank has to wait.
const CHANNEL: usize = 4096;

impl Device {
    /// Opens the preferred acceptable adapter with all that it can do.
    pub fn open(setup: &Setup) -> Result<Arc<Self>> {
        let timeout = setup.timeout;
        let sources = setup.trial.sources()?;
        let (mut info, adapter) = adapter::choose(&setup.choice)?;
        info.software &= !setup.trial.as_hardware;
        let limits = setup.trial.limits(adapter.limits());
        let experimental = match info.cooperative_matrices || info.cooperative_f16 {
            true => wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
            false => wgpu::Features::empty(),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("mtnlg"),
            required_features: adapter.features()
                & (wgpu::Features::SUBGROUP
                    | wgpu::Features::SHADER_F16
                    | wgpu::Features::TIMESTAMP_QUERY
                    | experimental),
            experimental_features: match experimental.is_empty() {
                true => wgpu::ExperimentalFeatures::disabled(),
                // SAFETY: the feature is for one kernel, which runs only where it has proved itself on this very adapter.
                #[allow(unsafe_code, reason = "cooperative matrices are experimental in wgpu")]
                false => unsafe { wgpu::ExperimentalFeatures::enabled() },
            },
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (raw, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| {
            Error::NoDevice { what: format!("{info} does not open: {error}; update its driver, or use another adapter or the CPU backend") }
        })?;
        let failure = Arc::new(Failure::default());
        let lost = Arc::clone(&failure);
        raw.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.set(format!("it was lost ({message}); restart from the last checkpoint, and if it happens again take a smaller microbatch, so that single kernels stay short"));
            }
        });
        let uncaptured = Arc::clone(&failure);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            uncaptured.set(match &error {
                wgpu::Error::OutOfMemory { .. } => {
                    format!("it ran out of memory ({error}); take a smaller microbatch or more ranks")
                }
                _ => format!("{error}; this is a defect of the backend or the driver, please report it"),
            });
        }));
        let uniform_layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("parameters"),
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: 0,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Uniform,
                    has_dynamic_offset: true,
                    min_binding_size: None,
                },
                count: None,
            }],
        });
        let (sender, receiver) = mpsc::sync_channel(CHANNEL);
        let choices = Arc::new(Choices::new(setup, &info));
        let mut owner = Owner::new(raw.clone(), queue, &uniform_layout, Arc::clone(&failure), timeout);
        owner.choices = Some(Arc::clone(&choices));
        let profiled = setup.profile && info.timestamps;
        if profiled {
            owner.start_profile();
        }
        let owner =
            std::thread::Builder::new()
                .name("wgpu".to_owned())
                .spawn(move || owner.run(&receiver))
                .map_err(|error| Error::NoDevice { what: format!("no thread for the device: {error}") })?;
        Ok(Arc::new(Self {
            max_buffer: adapter::max_buffer(&limits),
            max_binding: adapter::max_binding(&limits),
            max_groups: limits.max_compute_workgroups_per_dimension,
            info,
            compiler: Compiler::new(raw, uniform_layout, sources, setup.say),
            profiled,
            choices,
            failure,
            timeout,
            sender: Some(sender),
            owner: Some(owner),
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

    /// What `work` made, or the error that it raised.
    pub fn scoped<T>(&self, work: impl FnOnce(&wgpu::Device) -> T) -> std::result::Result<T, wgpu::Error> {
        self.compiler.scoped(work)
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
