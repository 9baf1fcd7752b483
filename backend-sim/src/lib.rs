//! A cluster that is not there: the contract of [`backend`] without data. Each rank has a clock and a memory meter; an operation checks its arguments as
//! every backend does and moves the clock, a buffer costs its bytes, a collective or a message waits for its peers in *simulated* time and costs time on
//! the link that it crosses.
//!
//! * [`cluster`]: a machine in TOML: devices, nodes, links; [`stack`]: what a training software does on it, and one fitted number;
//! * [`cost`]: how long a kernel, a collective, a message takes, with the source of every rule;
//! * [`kernels`]: the kernels that an operation of the contract is made of in a given software;
//! * [`device`]: the [`Backend`](backend::Backend); [`communicator`]: the [`Communicator`](backend::Communicator);
//! * [`world`]: where ranks meet, who stands for whom, and how a deadlock is seen; [`mod@run`]: a thread a rank, and what came of it.
//!
//! # Invariants
//! * Simulated times depend on what ranks do and say to each other, never on when their threads run: the same bits every time.
//! * Ranks that do the same at the same time need not all run: a [`Present`] set stands for the world, and absent ranks arrive when
//!   those that are present do.

pub mod cluster;
pub mod communicator;
pub mod cost;
pub mod device;
pub mod kernels;
pub mod run;
pub mod stack;
pub mod world;

pub use cluster::Cluster;
pub use communicator::SimCommunicator;
pub use device::{Line, Operation, SimBackend};
pub use run::{Fault, RankReport, run};
pub use stack::Stack;
pub use world::{Present, World};
