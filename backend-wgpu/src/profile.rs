//! Where the device's time goes: a timestamp before and after each kernel, summed by kernel.
//!
//! Measured kernels run in a pass each, and each batch is waited for: the shares are true, the pace of the whole is not that of an unmeasured run.

use std::collections::BTreeMap;
use std::time::Duration;

use backend::KernelTime;

use crate::queue::BATCH;

/// Takes the times.
pub(crate) struct Profiler {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    nanoseconds: f32,
    sums: BTreeMap<String, (u64, u64)>,
}

impl Profiler {
    /// `nanoseconds` is how long the device's tick is.
    pub fn new(device: &wgpu::Device, nanoseconds: f32) -> Self {
        let count = 2 * BATCH as u32;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: u64::from(count) * 8,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            nanoseconds,
            sums: BTreeMap::new(),
        }
    }

    /// Where the pass of the batch's kernel `i` writes its times.
    pub fn writes(&self, i: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * i as u32),
            end_of_pass_write_index: Some(2 * i as u32 + 1),
        }
    }

    /// Makes a batch of that many kernels leave its times where the host can read them.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder, kernels: usize) {
        if kernels > 0 {
            encoder.resolve_query_set(&self.queries, 0..2 * kernels as u32, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, 16 * kernels as u64);
        }
    }

    /// Adds the times of a batch that was submitted; `wait` waits for it.
    ///
    /// # Errors
    /// The times cannot be read.
    pub fn collect(&mut self, kernels: &[String], wait: impl FnOnce() -> bool) -> Result<(), String> {
        if kernels.is_empty() {
            return Ok(());
        }
        let slice = self.readback.slice(..16 * kernels.len() as u64);
        slice.map_async(wgpu::MapMode::Read, |_| {});
        if !wait() {
            return Ok(());
        }
        let range = slice.get_mapped_range().map_err(|error| format!("its clock cannot be read: {error}"))?;
        let ticks: &[u64] = bytemuck::cast_slice(&range);
        for (name, times) in kernels.iter().zip(ticks.chunks(2)) {
            let sum = self.sums.entry(name.clone()).or_default();
            sum.0 += 1;
            sum.1 += times[1].saturating_sub(times[0]);
        }
        drop(range);
        self.readback.unmap();
        Ok(())
    }

    /// What was measured since the last time, the longest first.
    pub fn take(&mut self) -> Vec<KernelTime> {
        let nanoseconds = f64::from(self.nanoseconds);
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 * nanoseconds * 1e-9);
        let sums = std::mem::take(&mut self.sums).into_iter();
        let mut all: Vec<_> = sums
            .map(|(name, (dispatches, ticks))| KernelTime { name, dispatches, time: time(ticks) })
            .collect();
        all.sort_by_key(|kernel| std::cmp::Reverse(kernel.time));
        all
    }
}
