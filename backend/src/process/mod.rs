//! Ranks as processes, on one host or many: a [`Communicator`](crate::Communicator) over any [`Backend`](crate::Backend), staged through host memory.
//!
//! Three pieces, each of which knows only the one before it:
//!
//! * [`Launch`]: what the launcher (torchrun, Open MPI, MPICH, Slurm) says of this process.
//! * [`Transport`]: messages of bytes between ranks. [`TcpTransport`] needs nothing but the standard library; `MpiTransport` (feature `mpi`) an MPI.
//! * [`ProcessCommunicator`]: the collectives, over any transport.
//!
//! ```no_run
//! # fn train<B: backend::Backend>(device: std::sync::Arc<B>) -> backend::Result<()> {
//! use backend::process::{Launch, ProcessCommunicator, TcpTransport};
//! use backend::{Communicator, Group, GroupKind};
//!
//! let timeout = std::time::Duration::from_secs(600);
//! if let Some(launch) = Launch::from_environment()? {
//!     let transport = TcpTransport::connect(&launch, "what must be equal on all ranks, such as a hash of the configuration", timeout)?;
//!     let communicator = ProcessCommunicator::new(transport, device, timeout);
//!     let world: Vec<_> = (0..launch.world_size).collect();
//!     communicator.barrier(&Group::new(GroupKind::World, world))?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! * **Bits.** Every collective gives the bits that [`local`](crate::local) gives on the same backend: an element is combined by
//!   [`Backend::reduce`](crate::Backend::reduce), in the order of the group, wherever that is done. The ranks must run the same backend on like devices.
//! * **No wait without end.** Sending never blocks; a receive ends with its message, the first failure of any rank, or the timeout.
//! * **One failure.** The first failure that a rank hears of is the one it reports and passes on *before* it goes down itself. So a rank that stopped
//!   because of another one is not taken for the one at fault.
//! * **Leaving is said.** A transport that is dropped says goodbye; a connection that ends without one is a failure. Drop the communicator before
//!   [`std::process::exit`].
//! * Ranks are trusted: nothing is encrypted, and who reaches the port and knows the protocol may take part. Use a private network.

mod call;
mod communicator;
mod environment;
mod inbox;
#[cfg(feature = "mpi")]
mod mpi;
mod tcp;
mod transport;

pub use communicator::ProcessCommunicator;
pub use environment::Launch;
#[cfg(feature = "mpi")]
pub use mpi::MpiTransport;
pub use tcp::TcpTransport;
pub use transport::{Channel, Interrupted, Message, Track, Transport};
