//! An open device: its limits, its pipelines, the thread that owns its queue, and the first thing that went wrong on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::{Error, Result};

use crate::adapter::{self, AdapterInfo, Choice};
use crate::kernels::Kernel;
use crate::preprocess::{self, Bindings};
use crate::queue::{Command, Owner};
use crate::trial::{Sources, Trial};

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

/// A kernel variant: what is compiled once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub path: &'static str,
    pub defines: Vec<(&'static str, u32)>,
    pub bindings: Bindings,
}

/// A compiled kernel and the layout of its storage buffers.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: Arc<Layout>,
}

/// The layout of some number of storage buffers, of which some are written.
#[derive(Debug)]
pub(crate) struct Layout {
    pub raw: wgpu::BindGroupLayout,
    pub id: u64,
}

type Cache<K, V> = Mutex<HashMap<K, Arc<OnceLock<V>>>>;

/// Looks the key up, and makes its value outside the lock if nobody has.
fn cached<K: std::hash::Hash + Eq, V: Clone>(cache: &Cache<K, V>, key: K, make: impl FnOnce() -> V) -> V {
    let slot = Arc::clone(cache.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
    slot.get_or_init(make).clone()
}

/// What the ranks on one adapter share.
pub(crate) struct Device {
    pub info: AdapterInfo,
    pub max_buffer: u64,
    pub max_binding: u64,
    pub max_groups: u32,
    raw: wgpu::Device,
    sources: Sources,
    uniform_layout: wgpu::BindGroupLayout,
    pipelines: Cache<Variant, Option<Arc<Pipeline>>>,
    layouts: Cache<(usize, u16), Arc<Layout>>,
    failure: Arc<Failure>,
    timeout: Duration,
    sender: Option<SyncSender<Command>>,
    owner: Option<JoinHandle<()>>,
}

/// Commands on their way to the owner thread before a rank has to wait.
const CHANNEL: usize = 4096;

impl Device {
    /// Opens the preferred acceptable adapter with all that it can do. No wait for the device lasts longer than `timeout`.
    pub fn open(choice: &Choice, timeout: Duration, trial: &Trial) -> Result<Arc<Self>> {
        let sources = trial.sources()?;
        let (mut info, adapter) = adapter::choose(choice)?;
        info.software &= !trial.as_hardware;
        let limits = trial.limits(adapter.limits());
        let experimental = match info.cooperative_matrices || info.cooperative_f16 {
            true => wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
            false => wgpu::Features::empty(),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("mtnlg"),
            required_features: adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16 | experimental),
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
        let owner = Owner::new(raw.clone(), queue, &uniform_layout, Arc::clone(&failure), timeout);
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
            raw,
            sources,
            uniform_layout,
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
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

    /// Runs `work` and returns the error that it raised, if it did.
    pub fn scoped<T>(&self, work: impl FnOnce(&wgpu::Device) -> T) -> std::result::Result<T, wgpu::Error> {
        let validation = self.raw.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let value = work(&self.raw);
        let memory = pollster::block_on(memory.pop());
        let validation = pollster::block_on(validation.pop());
        match memory.or(validation) {
            None => Ok(value),
            Some(error) => Err(error),
        }
    }

    /// The compiled kernel; `None` once the device has failed, which a kernel that does not compile makes it.
    pub fn pipeline(&self, kernel: &'static Kernel, variant: Variant) -> Option<Arc<Pipeline>> {
        cached(&self.pipelines, variant.clone(), || match self.compile(kernel, &variant) {
            Ok(pipeline) => Some(Arc::new(pipeline)),
            Err(what) => {
                self.failure.set(format!(
                    "kernel {} {:?} does not compile: {what}; this is a defect of the backend or the driver, please report it",
                    variant.path, variant.defines
                ));
                None
            }
        })
    }

    fn compile(&self, kernel: &Kernel, variant: &Variant) -> std::result::Result<Pipeline, String> {
        let files: Vec<_> = self.sources.iter().map(|(path, text)| (*path, &**text)).collect();
        let source = preprocess::expand(&files, kernel.path, &variant.defines, &variant.bindings)?;
        let layout = self.layout(variant.bindings.count(), variant.bindings.written);
        let pipeline = self.scoped(|device| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(kernel.path),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            };
            let checks = wgpu::ShaderRuntimeChecks {
                force_loop_bounding: false,
                int_div_checks: false,
                ..wgpu::ShaderRuntimeChecks::checked()
            };
            // SAFETY: what is left out are guards against endless loops and division by zero. The kernels are this crate's own: each loop counts up to
            // a bound that does not change in it, divisors are extents that the operations have checked not to be zero, or constants. Bounds
            // checks stay.
            #[allow(unsafe_code, reason = "the guards cost a fifth of a matrix product's time")]
            let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout.raw), Some(&self.uniform_layout)],
                immediate_size: 0,
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.path),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            })
        });
        let raw = pipeline.map_err(|error| error.to_string())?;
        Ok(Pipeline { raw, layout })
    }

    fn layout(&self, bindings: usize, written: u16) -> Arc<Layout> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        cached(&self.layouts, (bindings, written), || {
            let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: written >> binding & 1 == 0 },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            };
            let entries: Vec<_> = (0..bindings).map(entry).collect();
            let raw = self.raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            Arc::new(Layout { raw, id: NEXT.fetch_add(1, Relaxed) })
        })
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
