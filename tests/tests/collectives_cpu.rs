//! The collectives of ranks that are threads, on the CPU backend.

conformance::collective_tests!(|ranks, timeout| Some(backend_cpu::cluster(ranks, timeout)));
