//! Dawn for Node and SwiftShader, for the tests that run the kernels a second time: npm packages at the versions of the lock file, in a folder of the user's cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{answers, root, run};
use crate::packages;

/// Debian's packages of node and npm.
const PACKAGES: [&str; 2] = ["nodejs", "npm"];

/// What says which packages; and the script that unpacks SwiftShader.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "install.mjs"];

/// Sees to it that they are there; returns their folder.
///
/// # Errors
/// What is missing and cannot be installed.
pub fn ensure() -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("SwiftShader is packaged for Linux on x86-64 only".to_owned());
    }
    if !answers("node", &["--version"]) {
        packages::install(&PACKAGES, "no node", "no node; install Node.js 20 or later, with npm")?;
    }
    let folder = folder()?;
    let source = root().join("backend-wgpu/dawn");
    let same = |name: &str| {
        let read = |folder: &Path| std::fs::read(folder.join(name)).ok();
        read(&folder).is_some_and(|there| Some(there) == read(&source))
    };
    if FILES.iter().all(|name| same(name)) && folder.join("swiftshader").is_dir() {
        return Ok(folder);
    }
    if !answers("npm", &["--version"]) {
        return Err("no npm; install the one that belongs to this node".to_owned());
    }
    let file = |error: std::io::Error| format!("{}: {error}", folder.display());
    // What lies there is of other versions, or half of an installation.
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    std::fs::create_dir_all(&folder).map_err(file)?;
    for name in FILES {
        std::fs::copy(source.join(name), folder.join(name)).map_err(file)?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
    if !run(&mut npm, false).ok {
        return Err("npm cannot install Dawn (package webgpu) and SwiftShader".to_owned());
    }
    match run(Command::new("node").arg("install.mjs").current_dir(&folder), false).ok {
        true => Ok(folder),
        false => Err("SwiftShader cannot be unpacked".to_owned()),
    }
}

/// Where they lie.
fn folder() -> Result<PathBuf, String> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    Ok(cache.ok_or("neither XDG_CACHE_HOME nor HOME says where to put Dawn")?.join("mtnlg/dawn"))
}
