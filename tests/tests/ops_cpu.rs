//! Every operation on the CPU backend, on one thread and shared among three.

mod one_thread {
    conformance::operation_tests!(Some(backend_cpu::CpuBackend::new(1)));
}

mod three_threads {
    conformance::operation_tests!(Some(backend_cpu::CpuBackend::new(3)));
}
