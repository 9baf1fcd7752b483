//! The trainer of `mtnlg`: a run from its configuration to its report, tensor x pipeline x data parallel.
//!
//! These modules know no device; each is a value, a pure function or a file format:
//!
//! * [`layout`]: ranks, coordinates, groups and which layers a stage holds; [`schedule`]: what a stage does, in which order.
//! * [`config`]: the resolved configuration of a run; [`mod@reduce`]: the same made small; [`batch`], [`lr`]: batch size and learning rate, by the
//!   samples and tokens consumed; [`plan`]: what a run would be, for `--dry-run`.
//! * [`checkpoint`]: saving and loading under any layout; [`metrics`], [`tensorboard`], [`timeline`], [`progress`], [`report`]: what a run
//!   says of itself.
//!
//! These run on one:
//!
//! * [`device`] and [`launch`]: which backend, and the ranks on it; [`engine`]: what a rank does in a step; [`ledger`]: what it said to the others.
//! * [`mod@rehearse`] and [`planner`]: the same ranks on a cluster that is not there, and `mtnlg plan`;
//! * [`run`]: `mtnlg train`; [`inference`]: a trained model in use; [`mod@bench`]: `mtnlg bench`; [`parity`]: `mtnlg parity`; [`exchange`]: `mtnlg checkpoint`;
//!   [`subjects`]: what `mtnlg conformance` tests.
//!
//! Over all of them stand
//!
//! * [`cli`] and [`error`]: the command line, and the one message that a user gets when something is wrong.

pub mod batch;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod inference;
pub mod launch;
pub mod layout;
pub mod ledger;
pub mod lr;
pub mod metrics;
pub mod options;
pub mod parity;
pub mod plan;
pub mod planner;
pub mod presets;
pub mod progress;
pub mod reduce;
pub mod rehearse;
pub mod report;
pub mod run;
pub mod schedule;
pub mod subjects;
pub mod tensorboard;
pub mod timeline;

pub use error::{Error, Result};
