//! Faults planted in the kernels are found: a barrier, or a wait for a copy, left out where one is needed makes a conformance case fail on the CPU twin.
//!
//! Each fault runs in a process of its own, this test program with `TWIN_DROP` set, which runs the ignored test `child`. That the same cases pass without a
//! fault is the test of `ops.rs`.

mod twin;

use std::process::Command;

use backend_cuda::CudaBackend;
use conformance::ops::checks;
use conformance::or_skip;

/// `file:text:n`, occurrence n of the text in the file being left out, and the operation that finds it.
const FAULTS: [(&str, &str); 15] = [
    // Between a warp's sums and their sum; between that and the next use of the scratch memory.
    ("common.cuh:__syncthreads();:0", "layernorm"),
    ("common.cuh:__syncthreads();:1", "layernorm"),
    ("common.cuh:__syncthreads();:2", "cross_entropy_max"),
    // Between staging and use, and between use and the next staging.
    ("matmul.cu:__syncthreads();:0", "matmul"),
    ("matmul.cu:__syncthreads();:1", "matmul"),
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
        // One whose operands begin where copies may be asynchronous.
        "attention_backward" => "a=1,d=160,",
        "matmul" => "m=129,n=257",
        _ => "",
    }
}

#[test]
fn planted_faults_are_found() {
    let Some(settings) = or_skip("cuda-twin", twin::settings()) else { return };
    let mut missed = Vec::new();
    for (i, (fault, operation)) in FAULTS.iter().enumerate() {
        let cache =
            settings.cache.as_ref().unwrap().with_file_name(format!("fault-{i}-{}", std::process::id()));
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["child", "--exact", "--ignored", "--nocapture"]);
        child.env("TWIN_DROP", fault).env("TWIN_CACHE", &cache).env("FAULT_OPERATION", operation);
        child.env("MTNLG_CASE", cases(operation)).env("MTNLG_REQUIRE", "cuda-twin");
        let output = child.output().unwrap();
        let _ = std::fs::remove_dir_all(&cache);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // Found by a case, not by the compiler.
        let found = !output.status.success()
            && text.contains("cases failed")
            && !text.contains("nvrtcCompileProgram");
        if !found {
            missed.push(format!("{fault} ({operation}):\n{text}"));
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {} faults were not found:\n{}",
        missed.len(),
        FAULTS.len(),
        missed.join("\n")
    );
}

/// One operation, as the environment says; only `planted_faults_are_found` runs it.
#[test]
#[ignore = "run by planted_faults_are_found"]
fn child() {
    let backend = CudaBackend::new(0, &twin::settings().unwrap()).unwrap();
    match std::env::var("FAULT_OPERATION").unwrap().as_str() {
        "attention" => checks::attention(&backend),
        "attention_backward" => checks::attention_backward(&backend),
        "cross_entropy_max" => checks::cross_entropy_max(&backend),
        "layernorm" => checks::layernorm(&backend),
        "matmul" => checks::matmul(&backend),
        other => panic!("no operation {other}"),
    }
    .assert_passed();
}
