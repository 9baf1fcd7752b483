//! The CPU twin of a machine with GPUs: the libraries of `twin/`, which its `build.sh` builds by g++ for each state of their sources.
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use backend_cuda::Settings;

/// Where its libraries are; the error says what is missing. Built once a process.
pub fn settings() -> Result<Settings, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let at = BUILT.get_or_init(build).clone()?;
    // Those with a fault are for nobody else.
    let cache = std::env::var_os("TWIN_DROP").map(|_| at.join("kernels"));
    Ok(Settings { cache, libraries: Some(at), ..Settings::default() })
}

fn build() -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the twin switches stacks in the assembly of x86-64 Linux".to_owned());
    }
    if Command::new("g++").arg("--version").output().is_err() {
        return Err("the twin needs g++".to_owned());
    }
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("twin");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("twin/build.sh");
    let output = Command::new("sh").arg(script).arg(&at).output().map_err(|error| format!("sh: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(at)
}
