//! The CUDA backend: the operations of [`backend`](::backend) as kernels of our own, compiled by NVRTC for the device at hand, in f32, bf16 and f16;
//! matrix products by cuBLASLt where [`Products`] says so.
//!
//! Nothing of CUDA is needed to build it. The driver and NVRTC are loaded when a device is opened; what is missing is an error that names the file.
//!
//! ```no_run
//! use backend_cuda::{CudaBackend, Settings, devices};
//!
//! let settings = Settings::default();
//! for device in devices(&settings)? {
//!     println!("{device}");
//! }
//! let rank = CudaBackend::new(0, &settings)?;
//! # Ok::<(), backend::Error>(())
//! ```
//!
//! # Invariants
//! * **One stream computes.** Operations of a rank are enqueued on it in call order; a buffer that was dropped may be handed out again at once, because whatever
//!   still uses it comes first.
//! * **The same bits wherever it lies.** What a kernel of our own makes of an element or a row depends neither on how many others a call has nor on where the operand begins.
//! * **Narrow in memory only.** Arithmetic is fp32; what is stored is rounded once, to nearest even.
//! * **Failures stay.** What the driver reports is returned by every later read and sync.
//! * **One source.** Kernels are in `kernels/`; the same files, and this crate unmodified, run on a processor above the libraries of `twin/`.
#![allow(unsafe_code, reason = "calls into CUDA: each block says why it is sound")]

mod backend;
mod compiler;
mod cublaslt;
mod device;
mod driver;
mod kernels;
mod launch;
mod libraries;
mod listing;
mod memory;
mod nccl;
mod ops;

pub use crate::backend::CudaBackend;
pub use cublaslt::cublaslt_version;
pub use kernels::{Report, Resources, report};
pub use libraries::{Products, Settings};
pub use listing::{DeviceInfo, devices};
pub use memory::CudaBuffer;
pub use nccl::{NcclCommunicator, nccl_version};
