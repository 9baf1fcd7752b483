//! The collectives of ranks that share an adapter, on the wgpu backend: kernels and copies. Skipped without an adapter, as `ops_wgpu` is.

mod wgpu {
    use backend_wgpu::{Choice, WgpuBackend};
    use conformance::or_skip;

    conformance::collective_tests!(|ranks, timeout| or_skip(
        "wgpu",
        WgpuBackend::cluster(ranks, timeout, &Choice::Any { name: None })
    ));
}
