//! Text to documents, tokens, `.bin/.idx`, sample order and blend.
//!
//! From left to right:
//!
//! ```text
//!   input ──> step: extract, filter, dedup, decontaminate, clean ──> tokenize ──> indexed ──> split, order ──> blend ──> dataset: sample(i) -> [s + 1] tokens
//!   └──────────────────────── build (by a recipe) ────────────────────────┘
//! ```
//!
//! The crate knows no backend and no model. Everything that it gives is a pure function of its inputs and a seed: the same bits run
//! after run, on any number of threads. The position in the data is one number, the global samples consumed.

mod aside;
pub mod blend;
pub mod build;
pub mod clean;
pub mod corpus;
pub mod dataset;
pub mod decontaminate;
pub mod dedup;
mod error;
pub mod extract;
pub mod filter;
pub mod html;
pub mod indexed;
pub mod input;
pub mod inspect;
pub mod mt19937;
pub mod order;
mod read_at;
pub mod record;
pub mod split;
pub mod step;
pub mod tokenize;
pub mod tokenizer;
mod words;

pub use error::{Error, Result};
use read_at::read_at;

/// Use so many threads from here on, instead of one a core.
///
/// # Errors
/// [`Error::OutOfRange`] for 0, or where threads have been started already.
pub fn set_threads(threads: usize) -> Result<()> {
    let refuse = |expected: &str| Error::OutOfRange {
        name: "number of threads",
        value: threads.to_string(),
        expected: expected.to_owned(),
    };
    if threads == 0 {
        return Err(refuse("at least 1"));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|_| refuse("to be set before any work is done"))
}
