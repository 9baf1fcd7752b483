//! Tests that cross crates, as a library: every operation of the contract against an fp64 reference, the collectives, and the PyTorch fixture.
//!
//! [`ops`] and [`collectives`] are generic over the backend and know none; [`suite`] runs all of them on a [`Subject`].

pub mod case;
pub mod collectives;
pub mod draw;
pub mod fixture;
pub mod measure;
pub mod narrow;
pub mod number;
pub mod operands;
pub mod ops;
mod pass_on;
pub mod reference;
pub mod require;
pub mod subject;
pub mod suite;

pub use case::{Case, Failure};
pub use measure::Measure;
pub use number::{Bounded, BoundedSum, Real, U, exact, growth, stored};
pub use operands::{Handle, Operands, Outputs, Place, Views};
pub use require::or_skip;
pub use subject::{Expectation, Subject};
pub use suite::cli::main;
