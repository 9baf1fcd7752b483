//! Buffers: one of the device's an allocation, from a pool that each rank has for itself.
//!
//! A buffer that was dropped may be handed out again at once: the device's queue runs in order, so whatever still uses it comes first. One pool a rank keeps
//! the number of allocations the same whatever the timing of the other ranks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Class, Error, Meter, Result};

use crate::device::Device;
use crate::gpu::RawBuffer;

/// Sizes are rounded up to this: the alignment of bindings.
pub(crate) const ALIGNMENT: u64 = 256;

/// Device memory, with a name for the caches.
#[derive(Debug)]
pub(crate) struct Memory {
    pub raw: RawBuffer,
    pub id: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// Free memory by size, and the count of what is out.
pub(crate) struct Pool {
    device: Arc<Device>,
    pub meter: Meter,
    free: Mutex<HashMap<u64, Vec<Arc<Memory>>>>,
}

/// A share of a piece of device memory; the last one to go gives it back to its rank's pool.
#[derive(Clone)]
pub struct WgpuBuffer(Arc<Handle>);

struct Handle {
    memory: Arc<Memory>,
    bytes: usize,
    class: Class,
    pool: Arc<Pool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pool.meter.give(self.class, self.bytes as u64);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(self.memory.size).or_default().push(Arc::clone(&self.memory));
    }
}

impl backend::Buffer for WgpuBuffer {
    fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl WgpuBuffer {
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.0.memory
    }
}

impl Pool {
    pub fn new(device: Arc<Device>) -> Arc<Self> {
        Arc::new(Self { device, meter: Meter::default(), free: Mutex::default() })
    }

    pub fn alloc(self: &Arc<Self>, class: Class, bytes: usize) -> Result<WgpuBuffer> {
        let size = (bytes as u64).next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let allowed = self.device.max_buffer;
        if size > allowed {
            return Err(Error::Limit {
                op: "alloc",
                what: format!("a buffer of {class}"),
                limit: "largest buffer",
                allowed,
                asked: bytes as u64,
                remedy: "split the model over more ranks, or take a smaller microbatch",
            });
        }
        let pooled = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.get_mut(&size).and_then(Vec::pop)
        };
        let memory = match pooled {
            Some(memory) => memory,
            None => self.create(size).or_else(|_| {
                // What lies idle in other sizes may make the room.
                self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.device.release();
                self.create(size)
            })
            .map_err(|what| match self.device.failure() {
                Some(error) => error,
                None if what.is_some() => Error::Device { what: what.unwrap_or_default() },
                None => Error::OutOfMemory {
                    class,
                    asked: bytes as u64,
                    in_use: self.meter.in_use(),
                    remedy: "take a smaller microbatch, more recomputation or more ranks, or close what else uses the device",
                },
            })?,
        };
        self.meter.take(class, bytes as u64);
        Ok(WgpuBuffer(Arc::new(Handle { memory, bytes, class, pool: Arc::clone(self) })))
    }

    /// A new piece of device memory; the error is what else than memory was missing.
    fn create(&self, size: u64) -> std::result::Result<Arc<Memory>, Option<String>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let raw = self.device.buffer(size)?;
        Ok(Arc::new(Memory { raw, id: NEXT.fetch_add(1, Relaxed), size }))
    }
}
