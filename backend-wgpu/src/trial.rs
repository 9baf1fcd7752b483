//! What a test changes of a device before it opens: texts of the kernels, to see that a broken one is found, and limits, to meet at small sizes what
//! others meet at large ones.

use std::borrow::Cow;

use backend::{Error, Result};

use crate::device::Most;
use crate::shaders;

/// Changes to a device; by default none.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Texts that are replaced in the kernels.
    pub patches: Vec<Patch>,
    /// The largest window on a buffer that a kernel sees, in bytes, where the adapter allows more.
    pub max_binding: Option<u64>,
    /// Workgroups of a dispatch in each dimension, where the adapter allows more.
    pub max_groups: Option<u32>,
    /// Whether a software adapter gets the kernels that a GPU would: portable ones, with many lanes to a workgroup.
    pub as_hardware: bool,
}

/// A text that is replaced wherever it stands in a file of `shaders/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The file, below `shaders/`.
    pub file: &'static str,
    /// What stands there.
    pub from: &'static str,
    /// What is to stand there.
    pub to: &'static str,
}

/// The kernels' files: path below `shaders/`, and text.
pub(crate) type Sources = Vec<(&'static str, Cow<'static, str>)>;

impl Trial {
    /// The files as patched.
    pub(crate) fn sources(&self) -> Result<Sources> {
        let mut sources: Sources = shaders::FILES.iter().map(|&(path, text)| (path, text.into())).collect();
        for Patch { file, from, to } in &self.patches {
            let patched = sources.iter_mut().find(|(path, text)| path == file && text.contains(from));
            let Some((_, text)) = patched else {
                return Err(Error::Argument {
                    op: "open",
                    name: "patch",
                    value: format!("{from:?} in {file}"),
                    range: "a text of that kernel",
                });
            };
            *text = text.replace(from, to).into();
        }
        Ok(sources)
    }

    /// The limits as lowered.
    pub(crate) fn limits(&self, mut limits: wgpu::Limits) -> wgpu::Limits {
        if let Some(bytes) = self.max_binding {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        if let Some(groups) = self.max_groups {
            let most = &mut limits.max_compute_workgroups_per_dimension;
            *most = groups.min(*most);
        }
        limits
    }

    /// The same where the device is not wgpu's.
    pub(crate) fn lower(&self, mut most: Most) -> Most {
        most.binding = self.max_binding.unwrap_or(u64::MAX).min(most.binding) / 256 * 256;
        most.groups = self.max_groups.unwrap_or(u32::MAX).min(most.groups);
        most
    }
}
