//! Buffers: device memory from a pool that each rank has for itself, free lists by size.
//!
//! A buffer that was dropped may be handed out again at once: the rank's stream runs in order. Nothing goes back to the driver before memory is short, so that
//! a steady step asks it for nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend::{Class, Error, Meter, Result};

use crate::device::Device;
use crate::driver;

/// Sizes are rounded up to this.
const ALIGNMENT: usize = 512;

/// Free memory by size, and the count of what is out.
pub(crate) struct Pool {
    device: Arc<Device>,
    pub meter: Meter,
    free: Mutex<HashMap<usize, Vec<u64>>>,
}

/// A share of a piece of device memory; the last one to go gives it back to its rank's pool.
#[derive(Clone)]
pub struct CudaBuffer(Arc<Lease>);

struct Lease {
    address: u64,
    size: usize,
    bytes: usize,
    class: Class,
    pool: Arc<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.meter.give(self.class, self.bytes as u64);
        self.pool.free().entry(self.size).or_default().push(self.address);
    }
}

impl CudaBuffer {
    pub(crate) fn address(&self) -> u64 {
        self.0.address
    }
}

impl backend::Buffer for CudaBuffer {
    fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Pool {
    pub fn new(device: Arc<Device>) -> Arc<Self> {
        Arc::new(Self { device, meter: Meter::default(), free: Mutex::default() })
    }

    pub fn alloc(self: &Arc<Self>, class: Class, bytes: usize) -> Result<CudaBuffer> {
        let out_of_memory = || Error::OutOfMemory {
            class,
            asked: bytes as u64,
            in_use: self.meter.in_use(),
            remedy: "take a smaller microbatch, more recomputation or more ranks, or close what else uses the device",
        };
        let size = bytes.max(1).checked_next_multiple_of(ALIGNMENT).ok_or_else(out_of_memory)?;
        let pooled = self.free().get_mut(&size).and_then(Vec::pop);
        let address = match pooled {
            Some(address) => address,
            None => {
                self.device.enter()?;
                let address = driver::allocate(size).or_else(|failed| {
                    // What lies idle in other sizes may make the room.
                    if failed.out_of_memory() {
                        self.release();
                        return driver::allocate(size);
                    }
                    Err(failed)
                });
                address.map_err(|failed| match failed.out_of_memory() {
                    true => out_of_memory(),
                    false => self.device.failed(failed),
                })?
            }
        };
        self.meter.take(class, bytes as u64);
        Ok(CudaBuffer(Arc::new(Lease { address, size, bytes, class, pool: Arc::clone(self) })))
    }

    /// Gives the driver back what is free.
    fn release(&self) {
        for address in self.free().drain().flat_map(|(_, addresses)| addresses) {
            // A failure here is the device's; the allocation that follows finds it.
            let _ = driver::free(address);
        }
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            self.release();
        }
    }
}
