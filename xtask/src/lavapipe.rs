//! A Vulkan device for the tests of the wgpu backend: any GPU, else lavapipe, Mesa's software one.

use std::path::Path;

use crate::packages;

/// Debian's packages of the loader and of lavapipe.
const PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];

/// Makes sure that there is a device, installing lavapipe where this program may.
///
/// # Errors
/// Why there is none, and what to install.
pub fn ensure() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        // Metal and DX12 come with the system.
        return Ok(());
    }
    if installed() {
        return Ok(());
    }
    let elsewhere = "no Vulkan driver; install Mesa's lavapipe and the Vulkan loader (Fedora: mesa-vulkan-drivers vulkan-loader; Arch: vulkan-swrast \
                     vulkan-icd-loader)";
    packages::install(&PACKAGES, "no Vulkan driver", elsewhere)?;
    if installed() { Ok(()) } else { Err("no Vulkan driver, though its packages are there".to_owned()) }
}

fn installed() -> bool {
    let driver = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .next()
        .is_some();
    let chosen = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| std::env::var_os(name).is_some());
    let loader = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().any(|folder| {
        let here = |folder: &Path| folder.join("libvulkan.so.1").exists();
        let folder = Path::new(folder);
        here(folder)
            || std::fs::read_dir(folder)
                .is_ok_and(|entries| entries.flatten().any(|entry| here(&entry.path())))
    });
    loader && (driver || chosen)
}
