//! A device by wgpu: its pipelines and memory, and the executor that submits to its queue.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backend::{Error, KernelTime, Result};

use crate::adapter::AdapterInfo;
use crate::compile::{Pipeline, Promise};
use crate::device::{Failure, timed_out};
use crate::gpu::{RawBuffer, RawPipeline};
use crate::memory::Memory;
use crate::preprocess::{Bindings, MAX_BINDINGS};
use crate::profile::Profiler;
use crate::queue::{BATCH, Batch, Executor, MAX_PARAMS, STAGING, STRIDE, Step, Window};
use crate::setup::Setup;

/// Submissions under way before the owner waits: what wgpu keeps for each until then is bounded.
const IN_FLIGHT: usize = 4;
/// Bind groups kept.
const GROUPS: usize = 16 << 10;

/// The layout of some number of storage buffers, of which some are written.
#[derive(Debug)]
pub(crate) struct Layout {
    raw: wgpu::BindGroupLayout,
    id: u64,
}

/// A compiled kernel and the layout of its storage buffers.
#[derive(Debug)]
pub(crate) struct NativePipeline {
    raw: wgpu::ComputePipeline,
    layout: Arc<Layout>,
}

/// The device, as any thread uses it.
pub(crate) struct Native {
    raw: wgpu::Device,
    uniform_layout: wgpu::BindGroupLayout,
    layouts: Mutex<HashMap<(usize, u16), Arc<Layout>>>,
}

impl Native {
    /// Opens the adapter with all that it can do, within the limits. What goes wrong later goes into `failure`.
    pub fn open(
        setup: &Setup,
        info: &AdapterInfo,
        adapter: &wgpu::Adapter,
        limits: wgpu::Limits,
        failure: &Arc<Failure>,
    ) -> Result<(Self, NativeQueue)> {
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
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (raw, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| {
            Error::NoDevice { what: format!("{info} does not open: {error}; update its driver, or use another adapter or the CPU backend") }
        })?;
        let lost = Arc::clone(failure);
        raw.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.set(format!("it was lost ({message}); restart from the last checkpoint, and if it happens again take a smaller microbatch, so that single kernels stay short"));
            }
        });
        let uncaptured = Arc::clone(failure);
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
        let mut queue =
            NativeQueue::new(raw.clone(), queue, &uniform_layout, Arc::clone(failure), setup.timeout);
        if setup.profile && info.timestamps {
            queue.start_profile();
        }
        Ok((Self { raw, uniform_layout, layouts: Mutex::default() }, queue))
    }

    /// A new piece of device memory; the error is what else than memory was missing.
    pub fn buffer(&self, size: u64) -> std::result::Result<RawBuffer, Option<String>> {
        let buffer = self.scoped(|device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        match buffer {
            Ok(raw) => Ok(RawBuffer::Native(raw)),
            Err(wgpu::Error::OutOfMemory { .. }) => Err(None),
            Err(error) => Err(Some(error.to_string())),
        }
    }

    /// Runs `work` and returns the error that it raised, if it did.
    fn scoped<T>(&self, work: impl FnOnce(&wgpu::Device) -> T) -> std::result::Result<T, wgpu::Error> {
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

    /// Compiles plain WGSL.
    pub fn compile(
        &self,
        path: &str,
        source: String,
        bindings: &Bindings,
    ) -> std::result::Result<RawPipeline, String> {
        let layout = self.layout(bindings.count(), bindings.written);
        let pipeline = self.scoped(|device| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(path),
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
                label: Some(path),
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
        Ok(RawPipeline::Native(NativePipeline { raw, layout }))
    }

    fn layout(&self, bindings: usize, written: u16) -> Arc<Layout> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = layouts.entry((bindings, written)).or_insert_with(|| {
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
        });
        Arc::clone(layout)
    }
}

/// Layout, and the memory, offset and size of each binding.
type GroupKey = (u64, [(u64, u64, u64); MAX_BINDINGS]);

/// The device's queue.
pub(crate) struct NativeQueue {
    device: wgpu::Device,
    queue: wgpu::Queue,
    failure: Arc<Failure>,
    timeout: Duration,
    uniforms: wgpu::Buffer,
    uniform_group: wgpu::BindGroup,
    staging: wgpu::Buffer,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    readback: Option<wgpu::Buffer>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    profiler: Option<Profiler>,
}

/// The buffer behind memory of a device by wgpu.
fn buffer(memory: &Memory) -> &wgpu::Buffer {
    match &memory.raw {
        RawBuffer::Native(buffer) => buffer,
        // The owner turns it into the device's failure.
        RawBuffer::Dawn(_) => panic!("an operand lies on a device by Dawn"),
    }
}

/// The kernel, and what a profile calls it; the owner has waited for it.
fn pipeline(promise: &Promise) -> Option<(&NativePipeline, &str)> {
    match promise.get() {
        Some(Ok(Pipeline { raw: RawPipeline::Native(pipeline), name })) => Some((pipeline, name)),
        _ => None,
    }
}

fn entry((binding, window): (usize, &Window)) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding: binding as u32,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: buffer(&window.memory),
            offset: window.offset,
            size: wgpu::BufferSize::new(window.size),
        }),
    }
}

impl NativeQueue {
    fn new(
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
            groups: HashMap::new(),
            readback: None,
            in_flight: VecDeque::new(),
            profiler: None,
        }
    }

    /// From now on measures each kernel.
    fn start_profile(&mut self) {
        self.profiler = Some(Profiler::new(&self.device, self.queue.get_timestamp_period()));
    }

    fn group(&mut self, layout: &Layout, windows: &[Window]) -> wgpu::BindGroup {
        let mut key = (layout.id, [(0, 0, 0); MAX_BINDINGS]);
        for (slot, window) in key.1.iter_mut().zip(windows) {
            *slot = (window.memory.id, window.offset, window.size);
        }
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        let group = self.groups.entry(key).or_insert_with(|| {
            let entries: Vec<_> = windows.iter().enumerate().map(entry).collect();
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout.raw,
                entries: &entries,
            })
        });
        group.clone()
    }

    fn enqueue(&mut self, commands: Option<wgpu::CommandBuffer>) {
        let index = self.queue.submit(commands);
        self.in_flight.push_back(index);
        if self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            // A failure is kept for whoever reads next.
            let _ = self.poll(oldest);
        }
    }

    /// Waits for that submission, or for all.
    fn poll(&mut self, index: Option<wgpu::SubmissionIndex>) -> Result<()> {
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
}

impl Executor for NativeQueue {
    fn submit(&mut self, batch: &Batch) {
        if !batch.params.is_empty() {
            self.queue.write_buffer(&self.uniforms, 0, &batch.params);
        }
        if !batch.staged.is_empty() {
            self.queue.write_buffer(&self.staging, 0, &batch.staged);
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut steps = batch.steps.iter().peekable();
        let mut profiler = self.profiler.take();
        let mut timed = Vec::new();
        while let Some(step) = steps.peek() {
            if let Step::Copy { staged, memory, offset, bytes } = step {
                encoder.copy_buffer_to_buffer(&self.staging, *staged, buffer(memory), *offset, *bytes);
                steps.next();
                continue;
            }
            // One pass for a run of kernels; where each is measured, a pass for each.
            let timestamp_writes = profiler.as_ref().map(|profiler| profiler.writes(timed.len()));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            while let Some(Step::Launch { kernel, windows, offset, groups: [x, y, z] }) =
                steps.next_if(|step| matches!(step, Step::Launch { .. }))
            {
                let Some((pipeline, name)) = pipeline(kernel) else { continue };
                let group = self.group(&pipeline.layout, windows);
                pass.set_pipeline(&pipeline.raw);
                pass.set_bind_group(0, &group, &[]);
                pass.set_bind_group(1, &self.uniform_group, &[*offset]);
                pass.dispatch_workgroups(*x, *y, *z);
                if profiler.is_some() {
                    timed.push(name.to_owned());
                    break;
                }
            }
        }
        if let Some(profiler) = &profiler {
            profiler.resolve(&mut encoder, timed.len());
        }
        self.enqueue(Some(encoder.finish()));
        if let Some(profiler) = &mut profiler
            && let Err(what) = profiler.collect(&timed, || self.poll(None).is_ok())
        {
            self.failure.set(what);
        }
        self.profiler = profiler;
    }

    fn write(&mut self, memory: &Memory, offset: u64, data: &[u8]) {
        self.queue.write_buffer(buffer(memory), offset, data);
        // A submission is what makes wgpu let go of a piece's copy.
        self.enqueue(None);
    }

    fn wait(&mut self) -> Result<()> {
        self.poll(None)
    }

    fn read(&mut self, memory: &Memory, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let readback = match self.readback.take() {
            Some(buffer) if buffer.size() >= bytes => buffer,
            _ => self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: bytes.next_power_of_two(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
        };
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer(memory), offset, &readback, 0, bytes);
        self.enqueue(Some(encoder.finish()));
        let slice = readback.slice(..bytes);
        let failure = Arc::clone(&self.failure);
        slice.map_async(wgpu::MapMode::Read, move |mapped| {
            if let Err(error) = mapped {
                failure.set(format!("its memory cannot be read: {error}; restart from the last checkpoint"));
            }
        });
        self.poll(None)?;
        match slice.get_mapped_range() {
            Ok(range) => into.extend_from_slice(&range),
            Err(error) => self.failure.set(format!("its memory cannot be read: {error}")),
        }
        readback.unmap();
        self.readback = Some(readback);
        self.failure.get().map_or(Ok(()), Err)
    }

    fn release(&mut self) {
        self.groups.clear();
        self.readback = None;
    }

    fn profile(&mut self) -> Vec<KernelTime> {
        self.profiler.as_mut().map_or_else(Vec::new, Profiler::take)
    }
}
