//! `mtnlg plan`: what a run would be on a cluster that is not there: does it fit, how long is a step, which layout is best.
//!
//! * [`args`]: the command line, and the configuration that it asks for; [`predict`]: a configuration's prediction, from a step of the trainer itself on
//!   [`rehearse`](crate::rehearse); [`remedy`]: what would make a layout fit;
//! * [`search`]: every layout of a cluster, ranked, with the reason why each other one lost;
//! * [`published`]: predictions beside published runs, and the one number of each stack that was fitted on one of them;
//! * [`text`], [`page`]: how a terminal and a browser show it; [`calibrate`]: a cluster from what was measured on a machine.

pub mod args;
pub mod calibrate;
pub mod page;
pub mod predict;
pub mod published;
pub mod remedy;
pub mod search;
pub mod text;

pub use args::PlanArgs;
pub use predict::{Prediction, predict};
