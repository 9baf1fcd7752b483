//! `mtnlg conformance run` on every backend: the full tier on the CPU and on wgpu, the smoke tier with a GPU's kernels, under Dawn, and on CUDA, which without a GPU
//! is its CPU twin (`MTNLG_CUDA_LIBRARIES`). `MTNLG_TIER=full` runs the full one everywhere.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::process::Command;

use conformance::or_skip;

/// Runs it. Skipped where there is no such device, unless `MTNLG_REQUIRE` names `what`.
fn conforms(what: &str, backend: &str, tier: &str) {
    let tier = std::env::var("MTNLG_TIER").unwrap_or_else(|_| tier.to_owned());
    let least = if tier == "full" { 2500 } else { 250 };
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_mtnlg"))
        .args(["conformance", "run", "--backend", backend, "--tier", &tier, "--timeout", "300", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    let opened = match output.status.code() {
        Some(2) if said.contains("no device") => Err(said.clone()),
        _ => Ok(()),
    };
    if or_skip(what, opened).is_none() {
        return;
    }
    println!("{said}");
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(report["total"].as_u64().unwrap() >= least, "{} cases", report["total"]);
    assert_eq!(report["pass"], report["total"], "{said}");
}

#[test]
fn cpu() {
    conforms("cpu", "cpu", "full");
}

#[test]
fn wgpu() {
    conforms("wgpu", "wgpu", "full");
}

#[test]
fn wgpu_with_the_kernels_of_a_gpu() {
    conforms("wgpu", "wgpu-as-gpu", "smoke");
}

#[test]
fn dawn() {
    conforms("dawn", "dawn", "smoke");
}

#[test]
fn dawn_with_the_kernels_of_a_gpu() {
    conforms("dawn", "dawn-as-gpu", "smoke");
}

#[cfg(any(feature = "cuda", feature = "cuda-13"))]
#[test]
fn cuda() {
    conforms("cuda-twin", "cuda", "smoke");
}

#[cfg(any(feature = "cuda", feature = "cuda-13"))]
#[test]
fn cuda_with_products_by_cublaslt() {
    conforms("cuda-twin", "cuda-cublaslt", "smoke");
}
