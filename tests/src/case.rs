//! A case is data: an operation, its extents and settings, and an id that stays the same for good.

use backend::Backend;

use crate::Measure;

/// One thing to ask of a backend.
pub trait Case {
    /// Its name, such as `matmul:ta=1,tb=0,m=257,n=33,k=1000,dt=f32`.
    fn id(&self) -> String;

    /// Whether a backend may lack it, and say so with [`backend::Error::Unsupported`].
    fn optional(&self) -> bool {
        false
    }

    /// Asks it; returns how near it came to its limits.
    ///
    /// # Errors
    /// What is wrong.
    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure>;
}

/// What can be wrong with an operation.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The backend returned an error.
    #[error("the backend answers: {0}")]
    Backend(#[from] backend::Error),
    /// An element is farther from the reference than the arithmetic explains.
    #[error(
        "{operand}[{index}] = {observed:e}, expected {expected:e}: error {:.3e} is {:.3} x the limit {limit:.3e} ({beyond} of {len} elements beyond)",
        (f64::from(*observed) - expected).abs(), (f64::from(*observed) - expected).abs() / limit
    )]
    Wrong {
        /// The operand.
        operand: &'static str,
        /// Its worst element.
        index: usize,
        /// What it is.
        observed: f32,
        /// What it should be.
        expected: f64,
        /// How far it may be from that.
        limit: f64,
        /// How many elements are farther than they may.
        beyond: usize,
        /// Of how many.
        len: usize,
    },
    /// No element is too far, but all of them are as far as they may be.
    #[error(
        "{operand}: the mean of (error / limit)^2 over {len} elements is {spread:.3}, and that of roundings is at most {}: normalised mean square error {nmse:e}",
        crate::measure::SPREAD
    )]
    Spread {
        /// The operand.
        operand: &'static str,
        /// The mean of `(error / bound)^2`.
        spread: f64,
        /// `sum error^2 / sum expected^2`.
        nmse: f64,
        /// How many elements.
        len: usize,
    },
    /// A word was written that is not the operation's to write.
    #[error(
        "element {index} relative to {operand} (of {len}) was written, which the operation must leave alone"
    )]
    Trespass {
        /// The operand in which, or near which, it lies.
        operand: &'static str,
        /// That operand's length.
        len: usize,
        /// Index from the operand's start; outside its length it is a guard.
        index: i64,
    },
    /// Two runs differ.
    #[error("{operand}[{index}] is {first:e} in one run and {second:e} in the next")]
    Unsteady {
        /// The operand.
        operand: &'static str,
        /// The first element that differs.
        index: usize,
        /// Its value at first.
        first: f32,
        /// Its value then.
        second: f32,
    },
    /// A panic of a check, in its own words.
    #[error("{0}")]
    Other(String),
    /// A call that must be refused was not, or not with the right error.
    #[error("{what}: expected {expected}, the backend answers {got}")]
    Refusal {
        /// The mistake.
        what: String,
        /// The error it must get.
        expected: &'static str,
        /// What it got.
        got: String,
    },
}
