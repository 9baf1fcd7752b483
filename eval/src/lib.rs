//! The nine evaluation tasks of Megatron-Turing NLG: documents, requests, metrics and reports.
//!
//! The crate knows neither backend nor model. A [`Scorer`](scorer::Scorer) answers [`Request`](scorer::Request)s with log-likelihoods; everything
//! else is here: [`tasks`] turn a line of a file into a [`Document`](documents::Document), [`shots`] draws examples, [`run`] asks, [`journal`]
//! remembers, [`metrics`] measures, [`report`] tells. [`cli::EvalArgs`] is the command.
//!
//! ```
//! use eval::documents::Row;
//!
//! let boolq = eval::tasks::by_names("boolq").unwrap()[0];
//! let line = serde_json::json!({"passage": "Tin is a metal.", "question": "is tin a metal", "label": 1});
//! let document = &(boolq.read)(Row(&line)).unwrap()[0];
//! let requests = document.requests("");
//! assert_eq!(requests[0].context, "Tin is a metal.\nQuestion: is tin a metal?\nAnswer:");
//! assert_eq!((requests[1].continuation.as_str(), document.target), (" yes", 1));
//! ```
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
