//! The CPU backend: the reference, and the default where there is no GPU.
//!
//! Memory holds f32, bf16 or f16; arithmetic is f32, and an output is rounded once. Matrix products go through the `gemm` crate, but for
//! those of few rows; everything else is written on [`pulp`]'s vectors, so that one build uses AVX2 and FMA, or NEON, as the processor has them. A rank is a [`CpuBackend`]; ranks of one
//! process are a [`cluster`].
//!
//! ```
//! use backend::{Backend, Class, DType, ops::Add};
//!
//! let cpu = backend_cpu::CpuBackend::new(1);
//! let (x, y) = (cpu.alloc(Class::Workspace, DType::F32, [3].into())?, cpu.alloc(Class::Workspace, DType::F32, [3].into())?);
//! cpu.fill(x.view(), 2.0)?;
//! cpu.fill(y.view(), 1.0)?;
//! cpu.add(Add { x: x.view(), y: y.view(), alpha: 0.5 })?;
//! let mut bytes = [0; 12];
//! cpu.read(y.view(), &mut bytes)?;
//! assert_eq!(bytes[..4], 2.0f32.to_le_bytes());
//! # Ok::<(), backend::Error>(())
//! ```
//!
//! # Invariants
//! * An operation is done when its call returns; operations on one backend take their turn. Memory that several ranks' backends touch is the
//!   communicator's to order.
//! * The bits of every result are the same run after run, and for any number of threads.
//! * The bits of an element do not depend on how many others the call has: rows, elements, heads, and both extents of a matrix product may be cut.
//! * Nothing is asked of the system for a buffer of a class and size that was dropped before.
#![allow(unsafe_code, reason = "kernels: each block says why it is sound")]

mod chains;
mod cluster;
mod device;
mod element;
mod gemm;
mod lanes;
mod memory;
mod micro;
mod operand;
mod ops;
mod panels;
mod threads;
mod vector;

pub use cluster::cluster;
pub use device::CpuBackend;
pub use memory::CpuBuffer;
