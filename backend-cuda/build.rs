//! Refuses a build with no bindings, or with both.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let chosen = |feature: &str| std::env::var_os(feature).is_some();
    match (chosen("CARGO_FEATURE_CUDA"), chosen("CARGO_FEATURE_CUDA_13")) {
        (true, true) => println!(
            "cargo::error=features `cuda` (CUDA 12) and `cuda-13` (CUDA 13) exclude each other: choose the one of the driver that the program is to run on"
        ),
        (false, false) => {
            println!("cargo::error=choose the CUDA bindings: feature `cuda` (CUDA 12) or `cuda-13`")
        }
        _ => {}
    }
}
