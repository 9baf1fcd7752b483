//! Text to documents, tokens, `.bin/.idx`, sample order and blend.
//!
//! From left to right, one module each:
//!
//! ```text
//!   corpus, source ──> html ──> tokenizer ──> indexed ──> split, order ──> blend ──> dataset: sample(i) -> [s + 1] tokens
//!   └────────────────── prepare (cached) ──────────────┘
//! ```
//!
//! The crate knows no backend and no model. Everything that it gives is a pure function of its inputs and a seed: the same bits run
//! after run, on any number of threads. The position in the data is one number, the global samples consumed.

pub mod blend;
pub mod corpus;
pub mod dataset;
mod error;
pub mod html;
pub mod indexed;
pub mod mt19937;
pub mod order;
pub mod prepare;
pub mod source;
pub mod split;
pub mod tokenizer;

pub use error::{Error, Result};
