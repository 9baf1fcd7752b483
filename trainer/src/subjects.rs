//! The backends that `mtnlg conformance` tests, by name.

use std::sync::Arc;
use std::time::Duration;

use backend::Result;
use backend::local::LocalCommunicator;
use backend_cpu::CpuBackend;
use backend_wgpu::{Choice, Dawn, Setup, Trial, WgpuBackend};
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

/// The kernels in WGSL: by wgpu on the preferred adapter, software where there is no other, or by Dawn; those that the adapter gets, or a GPU's.
struct Wgsl {
    name: &'static str,
    dawn: bool,
    as_gpu: bool,
}

impl Wgsl {
    fn setup(&self, timeout: Duration) -> Result<Setup> {
        // Software too: it is what is asked for.
        let choice = if self.dawn { Choice::Dawn(Dawn::installed()?) } else { Choice::Any { name: None } };
        let trial = Trial { as_hardware: self.as_gpu, ..Trial::default() };
        Ok(Setup { trial, ..Setup::new(choice, timeout) })
    }
}

impl Subject for Wgsl {
    type Backend = WgpuBackend;

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn open(&self) -> Result<Arc<WgpuBackend>> {
        self.setup(PATIENCE)?.rank().map(Arc::new)
    }

    fn cluster(&self, ranks: usize, timeout: Duration) -> Result<Vec<LocalCommunicator<WgpuBackend>>> {
        self.setup(timeout)?.cluster(ranks)
    }
}

/// `cuda`: the first GPU, or the CPU twin where `MTNLG_CUDA_LIBRARIES` names its folder; `cuda-cublaslt`: with its matrix products by cuBLASLt.
#[cfg(any(feature = "cuda", feature = "cuda-13"))]
struct Cuda {
    name: &'static str,
    products: backend_cuda::Products,
}

#[cfg(any(feature = "cuda", feature = "cuda-13"))]
impl Subject for Cuda {
    type Backend = backend_cuda::CudaBackend;

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn open(&self) -> Result<Arc<Self::Backend>> {
        Self::Backend::new(0, &crate::device::cuda_settings(self.products)).map(Arc::new)
    }

    /// Ranks of one GPU. What NCCL does between several is tested in `backend-cuda`.
    fn cluster(&self, ranks: usize, timeout: Duration) -> Result<Vec<LocalCommunicator<Self::Backend>>> {
        Self::Backend::cluster(ranks, timeout, 0, &crate::device::cuda_settings(self.products))
    }
}

/// All of them.
pub fn all() -> Registry {
    let wgsl = |name, dawn, as_gpu| Box::new(Wgsl { name, dawn, as_gpu });
    vec![
        Box::new(Cpu),
        wgsl("wgpu", false, false),
        wgsl("wgpu-as-gpu", false, true),
        wgsl("dawn", true, false),
        wgsl("dawn-as-gpu", true, true),
        #[cfg(any(feature = "cuda", feature = "cuda-13"))]
        Box::new(Cuda { name: "cuda", products: backend_cuda::Products::Kernels }),
        #[cfg(any(feature = "cuda", feature = "cuda-13"))]
        Box::new(Cuda { name: "cuda-cublaslt", products: backend_cuda::Products::CublasLt }),
    ]
}
