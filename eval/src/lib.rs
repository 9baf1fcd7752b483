//! The nine evaluation tasks of Megatron-Turing NLG: documents, requests, metrics and reports.
//!
//! The crate knows neither backend nor model. A [`Scorer`](scorer::Scorer) answers [`Request`](scorer::Request)s with log-likelihoods; everything
//! else is here: [`tasks`] turn a line of a file into a [`Document`](documents::Document), [`shots`] draws examples, [`run`] asks, [`journal`]
//! remembers, [`metrics`] measures, [`report`] tells. [`cli::EvalArgs`] is the command.
//!
//! Prompts, order and metrics are lm-evaluation-harness's; a fixture that the harness itself made holds them, request for request.

pub mod cli;
pub mod documents;
mod error;
pub mod journal;
pub mod metrics;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod python;
pub mod report;
pub mod run;
pub mod samples;
pub mod scorer;
pub mod shots;
pub mod tasks;

pub use error::{Error, Result};
