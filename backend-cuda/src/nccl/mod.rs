//! Ranks that are processes (or threads), one a GPU, talking through NCCL.
//!
//! The ranks find each other over a [`Transport`](backend::process::Transport), which also carries failures; NCCL moves the data.
//!
//! # Invariants
//! * **Order.** A collective runs on a stream of its track (main, data), after what the rank has enqueued before. On the main track the rank's compute stream waits
//!   for it. On the data track the calling thread does, so that gradients are reduced beside the backward that another thread enqueues.
//! * **A communicator a group**, made at the group's first call; messages have one a direction and lane, so that no order of sends and receives can lock up.
//! * **Bits.** NCCL adds in an order of its own. With `invariant`, contributions are exchanged and added by [`Backend::reduce`](backend::Backend::reduce) in the
//!   contract's tree, as every maximum is, whose NaN NCCL does not promise.
//! * **Never a hang.** A watch looks after everything under way: what NCCL reports, a rank that fails, or a timeout aborts all communicators of the rank, and the
//!   next read or sync returns it with the operation, the group and the ranks.

mod communicator;
mod library;
mod messages;
mod watch;

pub use communicator::NcclCommunicator;

use backend::Result;

use crate::libraries::Settings;

/// The version of the NCCL that is found.
///
/// # Errors
/// [`NoDevice`](backend::Error::NoDevice) where it is missing.
pub fn nccl_version(settings: &Settings) -> Result<(i32, i32, i32)> {
    library::Nccl::load(settings)?.version()
}
