//! Dawn in a child process: the kernels compiled by Tint and executed by an implementation of WebGPU that shares no code with wgpu.
//!
//! The child is `node` with the npm package `webgpu`, and runs `dawn/dawn.mjs`; it takes the device's commands on its standard input. By default
//! its Vulkan driver is SwiftShader. `cargo xtask dawn` lays both out in a folder. What goes wrong in it (an error that Dawn reports, a child that ended or does
//! not answer in time) is the device's failure, as with wgpu. It is there to check kernels, not to train.

mod connection;
mod queue;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use backend::{Error, Result};

pub(crate) use connection::{Connection, DawnBuffer};
pub(crate) use queue::DawnQueue;

/// Where Dawn is, and what it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dawn {
    /// The folder that `cargo xtask dawn` made.
    pub folder: PathBuf,
    /// The manifest of the Vulkan driver; SwiftShader's if there is none.
    pub driver: Option<PathBuf>,
}

impl Dawn {
    /// What the environment's `MTNLG_DAWN` names, with the driver that `MTNLG_DAWN_DRIVER` does.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if it names nothing.
    pub fn installed() -> Result<Self> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = named("MTNLG_DAWN").ok_or_else(|| Error::NoDevice {
            what: "Dawn's folder is not known; run `cargo xtask dawn`, and set MTNLG_DAWN to the folder that it prints".to_owned(),
        })?;
        Ok(Self { folder, driver: named("MTNLG_DAWN_DRIVER") })
    }
}
