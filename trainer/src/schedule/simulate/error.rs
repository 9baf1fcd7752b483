//! What can be wrong with stages' instructions.

use crate::schedule::{Instruction, Unit};

/// Why the stages' instructions do not fit together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A message goes to or comes from a virtual stage that is not there.
    #[error("stage {stage} has {instruction:?}, but no such neighbour")]
    NoNeighbour {
        /// The stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
    },
    /// A unit that the pipeline does not have.
    #[error("stage {stage} has {instruction:?}, but no such chunk or microbatch")]
    NoUnit {
        /// The stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
    },
    /// A stage receives one unit where another was sent.
    #[error("stage {stage} has {instruction:?}, but microbatch {} for chunk {} was sent", sent.microbatch, sent.chunk)]
    OutOfOrder {
        /// The receiving stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
        /// The unit that the lane has next.
        sent: Unit,
    },
    /// Work whose input is not there: a forward before its receive, a backward before its forward, a send before its work, a weight gradient before the
    /// input's, or anything twice.
    #[error("stage {stage} has {instruction:?} before what it needs, or twice")]
    NotReady {
        /// The stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
    },
    /// Stages wait for each other, or for a message that nobody sends.
    #[error("deadlock: {}", waiting.iter().map(|(stage, i)| format!("stage {stage} waits in {i:?}")).collect::<Vec<_>>().join(", "))]
    Deadlock {
        /// Each stage that waits, and its instruction.
        waiting: Vec<(usize, Instruction)>,
    },
    /// Messages that nobody received.
    #[error("{count} messages from stage {from} to stage {to} were never received")]
    Unreceived {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// How many.
        count: usize,
    },
    /// Units that never went forward.
    #[error("stage {stage} reduces or ends before it has run {count} microbatches (times chunks)")]
    NotRun {
        /// The stage.
        stage: usize,
        /// How many units.
        count: usize,
    },
    /// Units that went forward and never backward.
    #[error("stage {stage} reduces or ends with the activations of {count} microbatches (times chunks)")]
    ActivationsLeft {
        /// The stage.
        stage: usize,
        /// How many units.
        count: usize,
    },
    /// Units whose input's gradient was computed and the weights' never.
    #[error(
        "stage {stage} reduces or ends without the weight gradients of {count} microbatches (times chunks)"
    )]
    WeightGradientsLeft {
        /// The stage.
        stage: usize,
        /// How many units.
        count: usize,
    },
}
