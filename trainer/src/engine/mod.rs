//! The engine: what one rank does in a training step, a validation, a checkpoint. Generic over the backend, and the same code on every rank.
//!
//! A step is the rank's list of [`Instruction`](crate::schedule::Instruction)s, executed one by one by [`Rank::train_step`]; there is no other path
//! through the model in training. Everything is allocated by [`Rank::new`]: a step asks the backend for no memory.
//!
//! * [`config`]: what a rank is told and answers; [`rank`]: its model chunks and the interpreter;
//! * [`chunk`]: a virtual stage: layers, optimizer, neighbours, the activations of the microbatches in flight;
//! * `buckets`, `reducer`: the part of the gradients that replicas reduce while the last backward still runs;
//! * [`optimizer`]: AdamW, over everything or a replica's share; [`scaler`]: f16's loss scale;
//! * [`totals`]: what a step must know of the world: loss, gradient norm; [`tree`]: sums that no layout changes;
//! * [`prefetch`]: samples read ahead of the step that needs them;
//! * [`state`]: parameters and moments to and from the host, by logical name and slice.

mod buckets;
pub mod chunk;
pub mod config;
pub mod optimizer;
pub mod prefetch;
pub mod rank;
mod reducer;
pub mod scaler;
pub mod state;
pub mod totals;
pub mod tree;

pub use config::{RankConfig, StepPlan, StepStats};
pub use optimizer::{AdamWSettings, Optimizer};
pub use prefetch::{Prefetch, Shelf};
pub use rank::Rank;
pub use scaler::LossScaler;
pub use state::TensorState;

use backend::Error;

/// A run's samples: a pure function of the global sample index, so that every rank, layout and resumed run sees the same data.
pub trait Samples: Sync {
    /// Writes the `out.len()` tokens of sample `index`: a sequence and the token behind it.
    fn read(&self, index: u64, out: &mut [u32]) -> Result<(), String>;
}

impl<F: Fn(u64, &mut [u32]) + Sync> Samples for F {
    fn read(&self, index: u64, out: &mut [u32]) -> Result<(), String> {
        self(index, out);
        Ok(())
    }
}

/// A sample that cannot be read, as an error that stops the other ranks too.
fn unreadable(index: u64, cause: String) -> Error {
    Error::Argument {
        op: "sample",
        name: "index",
        value: format!("{index} ({cause})"),
        range: "a sample that the data set can give",
    }
}

impl From<Error> for crate::Error {
    /// What another device, a smaller model or another layout would mend is the user's; the rest is not.
    fn from(error: Error) -> Self {
        match error {
            Error::OutOfMemory { .. }
            | Error::Limit { .. }
            | Error::NoDevice { .. }
            | Error::Unsupported { .. } => Self::user(error.to_string()),
            _ => Self::other(error.to_string()),
        }
    }
}
