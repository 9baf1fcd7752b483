//! The contract between the model and the machine it runs on.
//!
//! A backend implements [`Backend`]: buffers by [`Class`], a stream of enqueued operations at the grain of a fused kernel, blocking reads. Ranks talk
//! through a [`Communicator`]. The model and the trainer know these two traits and nothing below them; a backend knows this crate and nothing above it.
//!
//! # Invariants that every backend keeps
//! * **Order.** Operations of one rank take effect in the order in which they were called. A read or a sync waits for all that came before it.
//! * **Errors.** A wrong argument is returned at once, and nothing is enqueued. A failure of the device is sticky: the next [`Backend::read`] or
//!   [`Backend::sync`] returns it, and so does every later one.
//! * **Memory.** An operation never allocates: what it needs beside its operands is a `workspace` that the caller passes, sized by
//!   [`Backend::workspace`]. Buffers come from a pool; a fresh one holds no promise about its contents.
//! * **Determinism.** The same inputs give the same bits, run after run: no floating-point atomics, sums in a fixed order.
//! * **Randomness** is [`philox`], keyed by seed, stream and *global* element index, so that no layout can be told from its masks or initial weights.
//! * **Aliasing.** An output may be the same view as an input only where the operation says so; other overlaps are refused by
//!   [`check`](ops), which every backend calls first.

mod backend;
pub mod communicator;
mod dtype;
mod error;
pub mod local;
pub mod memory;
pub mod ops;
pub mod philox;
pub mod process;
pub mod rendezvous;
mod view;

pub use backend::{Backend, Info, KernelTime, Support};
pub use communicator::{Communicator, Group, GroupKind, Lane, ReduceOp};
pub use dtype::DType;
pub use error::{Error, Result};
pub use memory::{Class, Meter, Usage};
pub use view::{Buffer, MAX_RANK, Shape, Tensor, View};
