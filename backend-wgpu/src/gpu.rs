//! Whose device it is: wgpu's, or one by Dawn in a child process.

use std::sync::Arc;

use crate::dawn::{Connection, DawnBuffer};
use crate::native::{Native, NativePipeline};
use crate::preprocess::Bindings;

/// A device, as any thread uses it. What executes on it is the owner thread's.
pub(crate) enum Gpu {
    Native(Native),
    Dawn(Arc<Connection>),
}

/// A buffer of the device.
#[derive(Debug)]
pub(crate) enum RawBuffer {
    Native(wgpu::Buffer),
    Dawn(DawnBuffer),
}

/// A compiled kernel.
#[derive(Debug)]
pub(crate) enum RawPipeline {
    Native(NativePipeline),
    /// Its number.
    Dawn(u32),
}

impl Gpu {
    /// A new piece of device memory; the error is what else than memory was missing.
    pub fn buffer(&self, size: u64) -> Result<RawBuffer, Option<String>> {
        match self {
            Gpu::Native(native) => native.buffer(size),
            Gpu::Dawn(connection) => connection.buffer(size).map(RawBuffer::Dawn),
        }
    }

    /// Compiles plain WGSL.
    pub fn compile(&self, path: &str, source: String, bindings: &Bindings) -> Result<RawPipeline, String> {
        match self {
            Gpu::Native(native) => native.compile(path, source, bindings),
            Gpu::Dawn(connection) => connection.compile(&source, bindings).map(RawPipeline::Dawn),
        }
    }

    /// Gives up a device that does not answer, so that nobody goes on waiting for it.
    pub fn give_up(&self) {
        match self {
            // Its waits end by themselves.
            Gpu::Native(_) => {}
            Gpu::Dawn(connection) => connection.end(),
        }
    }
}
