//! The wgpu backend: the operations of [`backend`](::backend) as WGSL kernels on Vulkan, Metal and DX12, in f32.
//!
//! ```no_run
//! use std::time::Duration;
//! use backend_wgpu::{Choice, WgpuBackend, adapters};
//!
//! for adapter in adapters() {
//!     println!("{adapter}");
//! }
//! // Four ranks on one GPU.
//! let ranks = WgpuBackend::cluster(4, Duration::from_secs(60), &Choice::Hardware)?;
//! # Ok::<(), backend::Error>(())
//! ```
//!
//! # Invariants
//! * **One thread owns the device.** Ranks hand their work to it through one channel, and it submits in the order of arrival. What a rank hands over before
//!   a meeting on the host is therefore executed before what another rank hands over after it: that is all the synchronisation that the collectives
//!   of ranks on one device need.
//! * **Portable limits.** At most 8 storage buffers, 16 KiB of workgroup memory and 256 invocations; no subgroups, no float atomics; barriers in uniform
//!   control flow only.
//! * **Never a hang.** Every wait has a deadline. A lost device, an error that wgpu reports and a deadline that passed are sticky: every later read and sync
//!   returns them.

mod adapter;
mod backend;
mod device;
mod kernels;
mod launch;
mod memory;
mod ops;
mod preprocess;
mod queue;
mod shaders;
#[cfg(test)]
#[allow(clippy::needless_range_loop, reason = "indices are the maths' own")]
mod tests;

pub use crate::backend::WgpuBackend;
pub use adapter::{AdapterInfo, Choice, adapters};
pub use memory::WgpuBuffer;
