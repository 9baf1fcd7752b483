//! Faults planted in the kernels are found: a barrier, or a wait for a copy, left out where one is needed makes a conformance case fail on the CPU twin.
//!
//! Each fault runs in a process of its own, this test program with `TWIN_DROP` set, which runs the ignored test `child`. That the same cases pass without a
//! fault is the conformance suite's to say.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod twin;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use backend_cuda::CudaBackend;
use conformance::{Case, Failure, ops, or_skip};

/// `file:text:n`, occurrence n of the text in the file being left out, and the operation that finds it.
const FAULTS: [(&str, &str); 17] = [
    // Between a warp's sums and their sum; between that and the next use of the scratch memory.
    ("common.cuh:__syncthreads();:0", "layernorm"),
    ("common.cuh:__syncthreads();:1", "layernorm"),
    ("common.cuh:__syncthreads();:2", "cross_entropy_max"),
    // Between staging and use, and between use and the next staging.
    ("matmul.cu:__syncthreads();:0", "matmul"),
    ("matmul.cu:__syncthreads();:1", "matmul"),
    ("matmul_tensor.cu:__syncthreads();:0", "matmul"),
    ("matmul_tensor.cu:wait_copies<STAGES - 2>();:0", "matmul_copies"),
    // Attention forward: the queries in shared memory, then out of it; each tile in, and done with.
    ("flash.cu:wait_copies<0>();:0", "attention"),
    ("flash.cu:__syncthreads();:0", "attention"),
    ("flash.cu:__syncthreads();:1", "attention"),
    ("flash.cu:wait_copies<1>();:0", "attention"),
    ("flash.cu:__syncthreads();:2", "attention"),
    ("flash.cu:__syncthreads();:3", "attention"),
    // Backward.
    ("flash.cu:wait_copies<1>();:1", "attention_backward"),
    ("flash.cu:__syncthreads();:4", "attention_backward"),
    ("flash.cu:__syncthreads();:5", "attention_backward"),
    // Not a race: a rescaling left out.
    ("flash.cu:total[half] *= old[half];:0", "attention"),
];

/// The cases that are enough to find them: more than one tile of everything.
fn cases(operation: &str) -> &'static str {
    match operation {
        "attention" => "a=1,d=128,",
        // Those whose operands begin where copies may be asynchronous.
        "attention_backward" => "a=1,d=160,",
        "matmul_copies" => "ta=0,tb=0,m=128,n=128,",
        "matmul" => "m=129,n=257",
        _ => "",
    }
}

#[test]
fn cuda_faults_are_found() {
    if or_skip("cuda-twin", twin::settings()).is_none() {
        return;
    }
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((fault, operation)) = FAULTS.get(next.fetch_add(1, Relaxed)) {
                    let text = run(fault, operation);
                    // Found by a case, not by the compiler.
                    if !text.contains(FOUND) || text.contains("nvrtcCompileProgram") {
                        missed.lock().unwrap().push(format!("{fault} ({operation}):\n{text}"));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    let (count, of) = (missed.len(), FAULTS.len());
    assert!(missed.is_empty(), "{count} of {of} faults were not found:\n{}", missed.join("\n"));
}

/// What the child says of it.
const FOUND: &str = "the fault makes a case fail";

/// What a child with that fault says.
fn run(fault: &str, operation: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--ignored", "--nocapture"]);
    child.env("TWIN_DROP", fault).env("FAULT_OPERATION", operation);
    let output = child.output().unwrap();
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The first case that fails.
fn first<C: Case>(backend: &CudaBackend, cases: Vec<C>, filter: &str) -> Option<(String, Failure)> {
    let mut cases = cases.iter().filter(|case| case.id().contains(filter));
    cases.find_map(|case| Some((case.id(), case.run(backend).err()?)))
}

/// One operation, as the environment says; only `cuda_faults_are_found` runs it.
#[test]
#[ignore = "run by cuda_faults_are_found"]
fn child() {
    let backend = CudaBackend::new(0, &twin::settings().unwrap()).unwrap();
    let operation = std::env::var("FAULT_OPERATION").unwrap();
    let filter = cases(&operation);
    let failed = match operation.as_str() {
        "attention" => first(&backend, ops::attention::cases(), filter),
        "attention_backward" => first(&backend, ops::attention::backward_cases(), filter),
        "cross_entropy_max" => first(&backend, ops::cross_entropy::max_cases(), filter),
        "layernorm" => first(&backend, ops::layernorm::cases(), filter),
        "matmul" | "matmul_copies" => first(&backend, ops::matmul::cases(), filter),
        other => panic!("no operation {other}"),
    };
    if let Some((id, failure)) = failed {
        println!("{FOUND}: {id}: {failure}");
    }
}
