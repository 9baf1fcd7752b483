//! The wgpu backend: the operations of [`backend`](::backend) as WGSL kernels on Vulkan, Metal and DX12, in f32,
//! bf16 and f16.
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
//! * **Portable limits.** At most 8 storage buffers, 16 KiB of workgroup memory and 256 invocations; no float atomics; barriers in uniform control
//!   flow only. A kernel that needs more (subgroups of a known size, cooperative matrices) has another one in its place where the adapter lacks that.
//! * **Measured kernels change no bit.** Where several kernels do the same, [`Kernels`] says how one is chosen; but for [`Kernels::Fastest`] only among
//!   those that make the same bits.
//! * **Narrow in memory only.** bf16 and f16 lie two in a word; kernels compute in f32 whatever the operands are, and what is stored is rounded once, to nearest
//!   even. Views may begin and end anywhere; those of multiples of four elements are fast.
//! * **The same bits wherever it lies.** What an operation makes of an element or a row depends neither on how many others a call has nor on where the
//!   operand begins: a kernel does the same arithmetic whether memory is fetched in vectors or not.
//! * **Never a hang.** Every wait has a deadline. A lost device, an error that wgpu reports and a deadline that passed are sticky: every later read and sync
//!   returns them.

mod adapter;
mod backend;
mod compile;
mod dawn;
mod device;
mod gpu;
mod kernels;
mod launch;
mod matmul;
mod memory;
mod native;
mod operand;
mod ops;
mod preprocess;
mod profile;
mod queue;
mod setup;
mod shaders;
#[cfg(test)]
#[allow(clippy::needless_range_loop, reason = "indices are the maths' own")]
mod tests;
mod trial;

pub use crate::backend::WgpuBackend;
pub use adapter::{AdapterInfo, Choice, adapters};
pub use dawn::Dawn;
pub use memory::WgpuBuffer;
pub use setup::{Kernels, Setup};
#[doc(hidden)]
pub use trial::{Patch, Trial};
