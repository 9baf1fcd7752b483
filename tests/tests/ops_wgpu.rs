//! Every operation on the wgpu backend: on lavapipe, or whatever adapter there is. Without one, skipped; with `MTNLG_REQUIRE=wgpu`, failed.

// In a module so that the tests' names hold the backend's: `--skip wgpu`.
mod wgpu {
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use backend_wgpu::{Choice, WgpuBackend};
    use conformance::or_skip;

    /// The backend that the tests of this file share; `None` where there is no adapter.
    fn wgpu() -> Option<Arc<WgpuBackend>> {
        static BACKEND: OnceLock<backend::Result<Arc<WgpuBackend>>> = OnceLock::new();
        let open = || WgpuBackend::new(&Choice::Any { name: None }, Duration::from_secs(120)).map(Arc::new);
        or_skip("wgpu", BACKEND.get_or_init(open).clone())
    }

    conformance::operation_tests!(wgpu());
}
