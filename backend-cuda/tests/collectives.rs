//! The collectives of ranks that share a GPU, on the CPU twin: kernels and copies on one stream.

mod twin;

mod cuda {
    use backend_cuda::CudaBackend;
    use conformance::or_skip;

    conformance::collective_tests!(|ranks, timeout| {
        let open =
            |settings| CudaBackend::cluster(ranks, timeout, 0, &settings).map_err(|error| error.to_string());
        or_skip("cuda-twin", super::twin::settings().and_then(open))
    });
}
