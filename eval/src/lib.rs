//! The nine evaluation tasks of Megatron-Turing NLG: documents, requests, metrics and reports.
//!
//! The crate knows neither backend nor model. A [`Scorer`](scorer::Scorer) answers [`Request`](scorer::Request)s with log-likelihoods; everything else is here.

pub mod documents;
mod error;
pub mod python;
pub mod scorer;
pub mod shots;
pub mod tasks;

pub use error::{Error, Result};
