//! Host memory by class: 64-byte aligned blocks, kept in a free list of their class and size when their buffer is dropped.
//!
//! A block that was handed out once is never returned to the system before the backend goes, so that a training step asks it for nothing.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Buffer, Class, Error, Meter, Result, Usage};

/// Alignment of every block: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Memory that [`Pool`] owns.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is plain memory; who may touch it when is the backends' word, not the block's.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

/// One rank's memory.
#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<HashMap<(Class, usize), Vec<Block>>>,
    meter: Meter,
}

impl Pool {
    /// A buffer of `bytes`, its contents unspecified; in debug builds every float of it is NaN and every token `u32::MAX`.
    pub(crate) fn alloc(self: &Arc<Self>, class: Class, bytes: usize) -> Result<CpuBuffer> {
        let out_of_memory = || Error::OutOfMemory {
            class,
            asked: bytes as u64,
            in_use: self.meter.in_use(),
            remedy: "use a smaller microbatch or model, or more ranks",
        };
        let size = bytes.max(1).checked_next_multiple_of(ALIGN).ok_or_else(out_of_memory)?;
        let layout = Layout::from_size_align(size, ALIGN).map_err(|_| out_of_memory())?;
        let free = self.free().get_mut(&(class, size)).and_then(Vec::pop);
        let block = match free {
            Some(block) => block,
            None => {
                // SAFETY: the size is at least ALIGN. Zeroed, because a slice of memory that was never written may not exist.
                let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
                Block { start: start.ok_or_else(out_of_memory)?, layout }
            }
        };
        if cfg!(debug_assertions) {
            // SAFETY: the block is ours alone and so long.
            unsafe { block.start.write_bytes(0xFF, size) };
        }
        self.meter.take(class, bytes as u64);
        Ok(CpuBuffer(Arc::new(Lease { block: Some(block), bytes, class, pool: Arc::clone(self) })))
    }

    pub(crate) fn usage(&self, class: Class) -> Usage {
        self.meter.usage(class)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, HashMap<(Class, usize), Vec<Block>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for block in self.free().drain().flat_map(|(_, blocks)| blocks) {
            // SAFETY: allocated with this layout in `alloc`; every lease holds the pool, so none is left.
            unsafe { std::alloc::dealloc(block.start.as_ptr(), block.layout) };
        }
    }
}

/// A block, for as long as somebody holds it.
struct Lease {
    /// Taken only by `drop`.
    block: Option<Block>,
    bytes: usize,
    class: Class,
    pool: Arc<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.meter.give(self.class, self.bytes as u64);
        if let Some(block) = self.block.take() {
            self.pool.free().entry((self.class, block.layout.size())).or_default().push(block);
        }
    }
}

/// A handle to host memory. The last clone's drop gives it back to its rank's pool.
#[derive(Clone)]
pub struct CpuBuffer(Arc<Lease>);

impl CpuBuffer {
    /// Its first byte; aligned to 64.
    pub(crate) fn start(&self) -> *mut u8 {
        self.0.block.as_ref().map_or(std::ptr::null_mut(), |block| block.start.as_ptr())
    }
}

impl Buffer for CpuBuffer {
    fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_block_is_handed_out_again() {
        let pool = Arc::new(Pool::default());
        let first = pool.alloc(Class::Workspace, 4000).unwrap();
        let start = first.start();
        assert_eq!(start as usize % ALIGN, 0);
        assert_eq!(pool.usage(Class::Workspace), Usage { current: 4000, peak: 4000 });
        let clone = first.clone();
        drop(first);
        assert_eq!(pool.usage(Class::Workspace).current, 4000);
        assert_ne!(pool.alloc(Class::Workspace, 4000).unwrap().start(), start);
        drop(clone);
        assert_ne!(pool.alloc(Class::Activations, 4000).unwrap().start(), start);
        assert_eq!(pool.alloc(Class::Workspace, 3990).unwrap().start(), start);
        assert_eq!(pool.usage(Class::Workspace), Usage { current: 0, peak: 8000 });
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        let pool = Arc::new(Pool::default());
        for bytes in [usize::MAX, usize::MAX / 2 + 1, 1 << 62] {
            let error = pool.alloc(Class::Parameters, bytes).err().unwrap();
            assert!(matches!(error, Error::OutOfMemory { class: Class::Parameters, .. }), "{error}");
        }
        assert_eq!(pool.alloc(Class::Parameters, 0).unwrap().bytes(), 0);
    }
}
