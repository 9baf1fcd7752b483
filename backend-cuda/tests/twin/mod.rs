//! The CPU twin of a machine with GPUs: the libraries of `twin/`, built by g++ once for each state of their sources.
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use backend_cuda::Settings;

/// The libraries' names as the host's loader asks for them, and their sources.
const LIBRARIES: [(&str, &str); 3] =
    [("libcuda.so", "driver.cpp"), ("libnvrtc.so", "nvrtc.cpp"), ("libnccl.so", "nccl.cpp")];

/// Where its libraries and its compiled kernels are; the error says what is missing. Built once a process.
pub fn settings() -> Result<Settings, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let at = BUILT.get_or_init(build).clone()?;
    let cache = std::env::var_os("TWIN_CACHE").map_or_else(|| at.join("kernels"), PathBuf::from);
    Ok(Settings { libraries: Some(at), cache: Some(cache), ..Settings::default() })
}

fn build() -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the twin switches stacks in the assembly of x86-64 Linux".to_owned());
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("twin");
    let mut hash = blake3::Hasher::new();
    let mut names: Vec<_> = std::fs::read_dir(&sources).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in &names {
        hash.update(&std::fs::read(path).unwrap());
    }
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("twin-{}", &hash.finalize().to_hex()[..16]));
    std::fs::create_dir_all(&at).unwrap();
    for (library, source) in LIBRARIES {
        if at.join(library).exists() {
            continue;
        }
        // Beside, then renamed: another test program may build the same.
        let beside = at.join(format!("{library}.{}", std::process::id()));
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O2", "-shared", "-fPIC", "-pthread", "-Wall"]);
        for (name, header) in [("TWIN_DEVICE", "device.h"), ("TWIN_TENSOR", "tensor.h")] {
            command.arg(format!("-D{name}=\"{}\"", sources.join(header).display()));
        }
        command.arg(format!("-Wl,-soname,{library}")).arg("-o").arg(&beside).arg(sources.join(source));
        if source == "nccl.cpp" {
            command.arg(at.join("libcuda.so"));
        }
        let output = command.output().map_err(|error| format!("the twin needs g++: {error}"))?;
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&beside, at.join(library)).unwrap();
    }
    Ok(at)
}
