//! Every operation on the CUDA backend above the CPU twin: the same kernels and the same host code that run on a GPU.

mod twin;

// In a module so that the tests' names hold the backend's.
mod cuda {
    use std::sync::{Arc, OnceLock};

    use backend_cuda::CudaBackend;
    use conformance::or_skip;

    /// The backend that the tests of this file share; `None` where there is no twin.
    fn cuda() -> Option<Arc<CudaBackend>> {
        static BACKEND: OnceLock<Result<Arc<CudaBackend>, String>> = OnceLock::new();
        let open = || {
            let settings = super::twin::settings()?;
            CudaBackend::new(0, &settings).map(Arc::new).map_err(|error| error.to_string())
        };
        or_skip("cuda-twin", BACKEND.get_or_init(open).clone())
    }

    conformance::operation_tests!(cuda());
}
