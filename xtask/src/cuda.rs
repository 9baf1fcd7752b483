//! For the tests of the CUDA backend, none of which needs a GPU: its CPU twin, built by g++, and NVIDIA's own compiler, NCCL and cuBLASLt
//! from their PyPI wheels.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{answers, root, run};
use crate::packages;

/// The wheels, each at the version that the tests know.
const WHEELS: [(&str, &str); 3] = [
    ("nvidia-cuda-nvrtc-cu12", "12.9.86"),
    ("nvidia-nccl-cu12", "2.32.3"),
    ("nvidia-cublas-cu12", "12.9.1.4"),
];

/// Where the wheels' libraries are.
pub struct Wheels {
    /// The folder of `libnvrtc.so.12`.
    pub nvrtc: PathBuf,
    /// The folder of `libnccl.so.2`.
    pub nccl: PathBuf,
    /// The folder of `libcublasLt.so.12`.
    pub cublas: PathBuf,
}

/// Builds the twin where it is not built; returns the folder of its libraries.
///
/// # Errors
/// What is missing and cannot be installed.
pub fn twin() -> Result<PathBuf, String> {
    supported("the twin switches stacks in the assembly of x86-64 Linux")?;
    if !answers("g++", &["--version"]) {
        packages::install(&["g++"], "no g++", "no g++; install a C++ compiler of GCC")?;
    }
    // Beside this program, where the tests of the backend build it too.
    let program = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    let target = program.parent().and_then(Path::parent).ok_or("this program lies in no target folder")?;
    let folder = target.join("tmp/twin");
    let mut command = Command::new("sh");
    command.arg(root().join("backend-cuda/twin/build.sh")).arg(&folder);
    match run(&mut command, false).ok {
        true => Ok(folder),
        false => Err("g++ cannot build the twin".to_owned()),
    }
}

/// Sees to it that the wheels are in `.venv-cuda`.
///
/// # Errors
/// What is missing and cannot be installed.
pub fn wheels() -> Result<Wheels, String> {
    supported("the wheels that the tests know are for Linux on x86-64")?;
    let venv = root().join(".venv-cuda");
    if let Some(found) = installed(&venv) {
        return Ok(found);
    }
    let python = venv.join("bin/python");
    let usable = |python: &Path| answers(&python.display().to_string(), &["-m", "pip", "--version"]);
    if !usable(&python) {
        let make =
            || run(Command::new("python3").args(["-m", "venv"]).arg(&venv), false).ok && usable(&python);
        if !make() {
            let elsewhere = "no python3 with venv and pip";
            packages::install(&["python3-venv"], elsewhere, elsewhere)?;
            if !make() {
                return Err(format!("python3 cannot make {}", venv.display()));
            }
        }
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--only-binary=:all:"]);
    pip.args(WHEELS.map(|(name, version)| format!("{name}=={version}")));
    if !run(&mut pip, false).ok {
        return Err("pip cannot install NVRTC, NCCL and cuBLAS from PyPI".to_owned());
    }
    installed(&venv).ok_or_else(|| format!("the wheels in {} lack their libraries", venv.display()))
}

fn supported(why_not: &str) -> Result<(), String> {
    match cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        true => Ok(()),
        false => Err(why_not.to_owned()),
    }
}

/// The libraries, where the wheels are those that are asked for.
fn installed(venv: &Path) -> Option<Wheels> {
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?;
    pythons.flatten().find_map(|python| {
        let packages = python.path().join("site-packages");
        let there = |(name, version): (&str, &str)| {
            packages.join(format!("{}-{version}.dist-info", name.replace('-', "_"))).is_dir()
        };
        let nvidia = packages.join("nvidia");
        let found = Wheels {
            nvrtc: nvidia.join("cuda_nvrtc/lib"),
            nccl: nvidia.join("nccl/lib"),
            cublas: nvidia.join("cublas/lib"),
        };
        let files = [
            (&found.nvrtc, "libnvrtc.so.12"),
            (&found.nccl, "libnccl.so.2"),
            (&found.cublas, "libcublasLt.so.12"),
        ];
        let whole = files.into_iter().all(|(folder, file)| folder.join(file).is_file());
        (WHEELS.into_iter().all(there) && whole).then_some(found)
    })
}
