//! Work that needs ranks, on whichever backend was chosen: the one place where the choice becomes a type.

use std::time::Duration;

use backend::Backend;
use backend::local::LocalCommunicator;
use backend_wgpu::WgpuBackend;

use crate::Result;
use crate::device::Device;

/// The longest that a rank waits for another one, or for its device.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Something to do with a world of ranks, on any backend.
pub trait Job {
    /// What comes of it.
    type Output;

    /// Does it.
    ///
    /// # Errors
    /// Its own.
    fn run<B: Backend>(self, ranks: Vec<LocalCommunicator<B>>) -> Result<Self::Output>;
}

/// Opens the device for that many ranks of this process, and does the job on them.
///
/// # Errors
/// Those of the device and of the job.
pub fn launch<J: Job>(device: &Device, ranks: usize, job: J) -> Result<J::Output> {
    match device {
        Device::Cpu => job.run(backend_cpu::cluster(ranks, TIMEOUT)),
        Device::Wgpu(choice) => job.run(WgpuBackend::cluster(ranks, TIMEOUT, choice)?),
    }
}
