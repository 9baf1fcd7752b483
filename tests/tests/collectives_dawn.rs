//! The collectives of ranks that share an adapter, under Dawn: kernels and copies. Skipped without it, as `ops_dawn` is.

mod dawn {
    use backend_wgpu::{Choice, Dawn, WgpuBackend};
    use conformance::or_skip;

    conformance::collective_tests!(|ranks, timeout| {
        let open =
            Dawn::installed().and_then(|dawn| WgpuBackend::cluster(ranks, timeout, &Choice::Dawn(dawn)));
        or_skip("dawn", open)
    });
}
