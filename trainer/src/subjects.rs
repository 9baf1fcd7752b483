//! The backends that `mtnlg conformance` tests, by name.

use std::sync::Arc;
use std::time::Duration;

use backend::Result;
use backend::local::LocalCommunicator;
use backend_cpu::CpuBackend;
use backend_wgpu::{Choice, WgpuBackend};
use conformance::Subject;
use conformance::suite::cli::Registry;

/// A wait for a device that is longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// `cpu`: at least two threads, so that operations are shared among them.
struct Cpu;

impl Subject for Cpu {
    type Backend = CpuBackend;

    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn open(&self) -> Result<Arc<CpuBackend>> {
        Ok(CpuBackend::new(std::thread::available_parallelism().map_or(2, usize::from).max(2)))
    }

    fn cluster(&self, ranks: usize, timeout: Duration) -> Result<Vec<LocalCommunicator<CpuBackend>>> {
        Ok(backend_cpu::cluster(ranks, timeout))
    }
}

/// `wgpu`: the preferred adapter, software where there is no other.
struct Wgpu;

/// GPUs first; software too, since it is what is asked for.
const ANY: Choice = Choice::Any { name: None };

impl Subject for Wgpu {
    type Backend = WgpuBackend;

    fn name(&self) -> String {
        "wgpu".to_owned()
    }

    fn open(&self) -> Result<Arc<WgpuBackend>> {
        WgpuBackend::new(&ANY, PATIENCE).map(Arc::new)
    }

    fn cluster(&self, ranks: usize, timeout: Duration) -> Result<Vec<LocalCommunicator<WgpuBackend>>> {
        WgpuBackend::cluster(ranks, timeout, &ANY)
    }
}

/// All of them.
pub fn all() -> Registry {
    vec![Box::new(Cpu), Box::new(Wgpu)]
}
