//! An MPI for the tests of ranks that mpirun starts: its compiler wrapper, its launcher, and libclang, which the binding reads its headers with.

use crate::command::answers;
use crate::packages;

const PACKAGES: [&str; 3] = ["libopenmpi-dev", "openmpi-bin", "libclang-dev"];

/// Sees to it that there is one.
///
/// # Errors
/// What is missing and cannot be installed.
pub fn ensure() -> Result<(), String> {
    if installed() {
        return Ok(());
    }
    let elsewhere = "no MPI; install Open MPI or MPICH with its headers, and libclang";
    packages::install(&PACKAGES, "no MPI", elsewhere)?;
    if installed() { Ok(()) } else { Err("no MPI, though its packages are there".to_owned()) }
}

fn installed() -> bool {
    let clang = "ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib/libclang*.so* /usr/lib64/libclang*.so* \
                 /opt/homebrew/opt/llvm/lib/libclang.dylib 2>/dev/null | grep -q .";
    answers("mpicc", &["--version"])
        && answers("mpirun", &["--version"])
        && (std::env::var_os("LIBCLANG_PATH").is_some() || answers("sh", &["-c", clang]))
}
