//! Debian packages that the tests need.

use std::path::Path;
use std::process::Command;

use crate::command::{answers, run};

/// Installs them, as root or by sudo without a password. What is `missing` without them, and what to do on other systems, goes into the advice.
///
/// # Errors
/// Another system, no right to install, or no way to the packages: with the advice.
pub fn install(packages: &[&str], missing: &str, elsewhere: &str) -> Result<(), String> {
    if !Path::new("/etc/debian_version").exists() {
        return Err(elsewhere.to_owned());
    }
    let advice = format!("{missing}; run: apt-get install {}", packages.join(" "));
    let as_root = |words: &[&str]| {
        let mut command = match answers("sh", &["-c", "test \"$(id -u)\" = 0"]) {
            true => Command::new("env"),
            false => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "env"]);
                sudo
            }
        };
        command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
        command
    };
    if !run(&mut as_root(&["true"]), true).ok {
        return Err(advice);
    }
    let install = [&["apt-get", "install", "-y", "--no-install-recommends"][..], packages].concat();
    // The list of packages may be old or missing; then one update, and once more.
    let done = run(&mut as_root(&install), false).ok
        || (run(&mut as_root(&["apt-get", "update"]), false).ok && run(&mut as_root(&install), false).ok);
    if done { Ok(()) } else { Err(advice) }
}
