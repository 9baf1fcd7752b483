//! Pipeline schedules as pure generators: what each stage does in a step, in order.
//!
//! A stage of a [`Pipeline`] executes a list of [`Instruction`]s one by one. Which [`Schedule`] it is decides the order of the work only
//! (`one_f_one_b`, `interleaved`, `zb_h1`); receives and sends are set around the work in one place: a receive directly before the work that needs it, a
//! send directly behind the work that makes it. Sends are buffered and do not wait; receives wait. Messages from one rank to another keep their order in
//! each of two lanes, activations and gradients. All chunks share the lanes.
//!
//! ```
//! use trainer::schedule::{Instruction as I, Pipeline, Schedule, Unit};
//! let pipeline = Pipeline { schedule: Schedule::OneFOneB, stages: 2, chunks: 1, microbatches: 1 };
//! let unit = Unit { chunk: 0, microbatch: 0 };
//! assert_eq!(pipeline.instructions(1)[..4], [I::RecvForward(unit), I::Forward(unit), I::Backward(unit), I::SendBackward(unit)]);
//! ```
//!
//! Invariants, each property-tested through [`simulate()`]:
//!
//! * every unit runs forward and backward once; sends and receives match in order in every lane; nothing deadlocks;
//! * on every stage and chunk the forwards, the backwards and the weight gradients each come in ascending order of the microbatch: what is held is a
//!   contiguous window of microbatches, and microbatch `i` may keep its activations in set `i % max_in_flight`;
//! * activations held and the time spent waiting are those of the papers, see [`Schedule`].

mod interleaved;
mod one_f_one_b;
mod simulate;
#[cfg(test)]
mod tests;
mod zb_h1;

pub use simulate::{Costs, Queued, ScheduleError, Span, Timeline, Work, simulate};

use serde::{Deserialize, Serialize};

/// In which order a pipeline of `p` stages runs its `m` microbatches; `T_F`, `T_B` and `T_W` are the times of a stage's forward, gradient of the input and
/// gradient of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// All forwards, then all backwards (Huang et al., arXiv 1811.06965): holds `m` microbatches; waits `(p - 1)(T_F + T_B + T_W)`.
    #[serde(rename = "gpipe")]
    GPipe,
    /// A warm-up of forwards, then one forward and one backward in turn (PipeDream-Flush; Narayanan et al., arXiv 2104.04473, section 2.2.1): the same
    /// wait, `min(p - r, m)` microbatches held on stage `r`.
    #[serde(rename = "1f1b")]
    OneFOneB,
    /// 1F1B over `v` model chunks a stage (same paper, section 2.2.2): waits `(p - 1)(T_F + T_B + T_W) / v`, and sends `v` times as much.
    #[serde(rename = "interleaved")]
    Interleaved,
    /// 1F1B whose weight gradients fill the wait (ZB-H1; Qi et al., arXiv 2401.10241, section 2.1): waits `(p - 1)(T_F + T_B - T_W)`; every stage holds
    /// `min(p, m)` microbatches, as 1F1B's first one does.
    #[serde(rename = "zb-h1")]
    ZbH1,
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GPipe => "gpipe",
            Self::OneFOneB => "1f1b",
            Self::Interleaved => "interleaved",
            Self::ZbH1 => "zb-h1",
        })
    }
}

/// A microbatch on one of a stage's model chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// The stage's model chunk, `0..v`.
    pub chunk: usize,
    /// Index of the microbatch, `0..m`.
    pub microbatch: usize,
}

/// One thing that a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// Wait for the unit's input from the virtual stage before.
    RecvForward(Unit),
    /// Run the chunk's layers on the microbatch, and keep its activations.
    Forward(Unit),
    /// Hand the output to the virtual stage after.
    SendForward(Unit),
    /// Wait for the gradient of the unit's output from the virtual stage after.
    RecvBackward(Unit),
    /// Run the unit backwards, add to the weights' gradients, and let its activations go. All schedules but ZB-H1.
    Backward(Unit),
    /// The gradient of the unit's input alone. ZB-H1.
    BackwardInput(Unit),
    /// The gradient of the weights, of a unit whose input's gradient is done: add it, and let the activations go. ZB-H1.
    BackwardWeight(Unit),
    /// Hand the gradient of the input to the virtual stage before.
    SendBackward(Unit),
    /// Sum the tied embedding's gradient over first and last stage; only they have this instruction, and only where they differ.
    ReduceTiedEmbedding,
    /// Sum the gradients over the data-parallel group.
    ReduceGradients,
    /// Clip and update the weights.
    Step,
}

impl Instruction {
    /// The unit of a message or of work; reductions and the step have none.
    pub fn unit(&self) -> Option<Unit> {
        match *self {
            Self::RecvForward(unit)
            | Self::Forward(unit)
            | Self::SendForward(unit)
            | Self::RecvBackward(unit)
            | Self::Backward(unit)
            | Self::BackwardInput(unit)
            | Self::BackwardWeight(unit)
            | Self::SendBackward(unit) => Some(unit),
            Self::ReduceTiedEmbedding | Self::ReduceGradients | Self::Step => None,
        }
    }
}

/// Stages, their model chunks, and what runs through them in a step. [`validate`](Self::validate) says whether it can be; the other methods expect so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// The order.
    pub schedule: Schedule,
    /// Stages, `p`.
    pub stages: usize,
    /// Model chunks a stage, `v`; 1 unless the schedule is interleaved.
    pub chunks: usize,
    /// Microbatches a step and replica, `m`.
    pub microbatches: usize,
}

/// Why a [`Pipeline`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// A size is 0.
    #[error("{key} is 0; it must be at least 1")]
    Zero {
        /// The configuration key, or what the number is.
        key: &'static str,
    },
    /// Interleaving one stage with itself.
    #[error(
        "parallel.schedule = interleaved needs at least 2 stages, and parallel.pipeline = 1; set parallel.pipeline to 2 or more, or parallel.schedule \
         to 1f1b and parallel.virtual_stages to 1"
    )]
    InterleavedAlone,
    /// Interleaving runs each chunk on `p` microbatches at a time.
    #[error(
        "parallel.schedule = interleaved needs a multiple of parallel.pipeline = {stages} microbatches a replica, and train.global_batch / \
         (train.micro_batch x parallel.data) = {microbatches}; set train.global_batch to a multiple of train.micro_batch x parallel.data x \
         parallel.pipeline, or parallel.schedule to 1f1b and parallel.virtual_stages to 1"
    )]
    Microbatches {
        /// Microbatches a replica.
        microbatches: usize,
        /// Stages.
        stages: usize,
    },
    /// Chunks where the schedule has none.
    #[error(
        "parallel.virtual_stages = {chunks} is for parallel.schedule = interleaved, and parallel.schedule = {schedule}; set parallel.virtual_stages to \
         1, or parallel.schedule to interleaved"
    )]
    NotInterleaved {
        /// Chunks a stage.
        chunks: usize,
        /// The schedule.
        schedule: Schedule,
    },
}

impl From<PipelineError> for crate::Error {
    fn from(error: PipelineError) -> Self {
        Self::user(error.to_string())
    }
}

impl Pipeline {
    /// Whether the schedule can run this many microbatches on this many stages and chunks.
    ///
    /// # Errors
    /// What does not fit, by its configuration keys, and what would.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let Self { schedule, stages, chunks, microbatches } = *self;
        for (key, size) in [
            ("parallel.pipeline", stages),
            ("parallel.virtual_stages", chunks),
            ("the number of microbatches a replica", microbatches),
        ] {
            if size == 0 {
                return Err(PipelineError::Zero { key });
            }
        }
        match schedule {
            Schedule::Interleaved if stages == 1 => Err(PipelineError::InterleavedAlone),
            Schedule::Interleaved if microbatches % stages > 0 => {
                Err(PipelineError::Microbatches { microbatches, stages })
            }
            Schedule::GPipe | Schedule::OneFOneB | Schedule::ZbH1 if chunks > 1 => {
                Err(PipelineError::NotInterleaved { chunks, schedule })
            }
            _ => Ok(()),
        }
    }

    /// What a stage does in a step: its work with the messages around it, then the reductions and the update.
    ///
    /// # Panics
    /// If there is no such stage.
    pub fn instructions(&self, stage: usize) -> Vec<Instruction> {
        assert!(stage < self.stages, "stage {stage} of {}", self.stages);
        let work = match self.schedule {
            Schedule::GPipe => one_f_one_b::gpipe(self.microbatches),
            Schedule::OneFOneB => one_f_one_b::work(self.stages, self.microbatches, stage),
            Schedule::Interleaved => interleaved::work(self.stages, self.chunks, self.microbatches, stage),
            Schedule::ZbH1 => zb_h1::work(self.stages, self.microbatches, stage),
        };
        let mut list = Vec::with_capacity(3 * work.len() + 3);
        work.into_iter().for_each(|work| self.with_messages(stage, work, &mut list));
        if self.stages > 1 && (stage == 0 || stage + 1 == self.stages) {
            list.push(Instruction::ReduceTiedEmbedding);
        }
        list.extend([Instruction::ReduceGradients, Instruction::Step]);
        list
    }

    /// The instructions of all stages, first to last.
    pub fn all_instructions(&self) -> Vec<Vec<Instruction>> {
        (0..self.stages).map(|stage| self.instructions(stage)).collect()
    }

    /// The most messages that are on their way into a stage at once, whatever the stages' speeds.
    ///
    /// # Errors
    /// [`ScheduleError`], for lists that do not fit together.
    pub fn queued(&self, stage: usize) -> Result<Queued, ScheduleError> {
        simulate::queued(self, &self.all_instructions(), stage)
    }

    /// Work, its input's receive before it and its result's send behind it; the ends of the pipeline lack what they have no neighbour for.
    fn with_messages(&self, stage: usize, work: Instruction, list: &mut Vec<Instruction>) {
        let neighbours =
            |unit: Unit| (self.previous(stage, unit.chunk).is_some(), self.next(stage, unit.chunk).is_some());
        let (receive, send) = match work {
            Instruction::Forward(unit) => {
                let (previous, next) = neighbours(unit);
                (
                    previous.then_some(Instruction::RecvForward(unit)),
                    next.then_some(Instruction::SendForward(unit)),
                )
            }
            Instruction::Backward(unit) | Instruction::BackwardInput(unit) => {
                let (previous, next) = neighbours(unit);
                (
                    next.then_some(Instruction::RecvBackward(unit)),
                    previous.then_some(Instruction::SendBackward(unit)),
                )
            }
            _ => (None, None),
        };
        list.extend(receive);
        list.push(work);
        list.extend(send);
    }

    /// Which of the model's `p v` successive parts the chunk is: chunk `c` of stage `r` holds the layers of virtual stage `c p + r`.
    pub fn virtual_stage(&self, stage: usize, chunk: usize) -> usize {
        chunk * self.stages + stage
    }

    /// Stage and chunk of the virtual stage after; none after the last.
    pub fn next(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        let next = self.virtual_stage(stage, chunk) + 1;
        (next < self.stages * self.chunks).then(|| self.place(next))
    }

    /// Stage and chunk of the virtual stage before; none before the first.
    pub fn previous(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        self.virtual_stage(stage, chunk).checked_sub(1).map(|previous| self.place(previous))
    }

    /// Stage and chunk of a virtual stage.
    fn place(&self, virtual_stage: usize) -> (usize, usize) {
        (virtual_stage % self.stages, virtual_stage / self.stages)
    }
}

/// The most microbatches whose activations the chunk holds at once: forward done, backward (in ZB-H1 the weights' gradient) not yet.
pub fn max_in_flight(list: &[Instruction], chunk: usize) -> usize {
    most_at_once(list, chunk, |instruction| match instruction {
        Instruction::Forward(_) => Some(true),
        Instruction::Backward(_) | Instruction::BackwardWeight(_) => Some(false),
        _ => None,
    })
}

/// The most microbatches whose weight gradients the chunk owes at once: gradient of the input done, of the weights not yet. 0 but for ZB-H1.
pub fn max_deferred(list: &[Instruction], chunk: usize) -> usize {
    most_at_once(list, chunk, |instruction| match instruction {
        Instruction::BackwardInput(_) => Some(true),
        Instruction::BackwardWeight(_) => Some(false),
        _ => None,
    })
}

/// The most that is held at once, where `change` says whether an instruction takes something up (true) or lets it go (false).
fn most_at_once(list: &[Instruction], chunk: usize, change: impl Fn(&Instruction) -> Option<bool>) -> usize {
    let (mut held, mut most) = (0usize, 0);
    for instruction in list.iter().filter(|i| i.unit().is_some_and(|unit| unit.chunk == chunk)) {
        match change(instruction) {
            Some(true) => held += 1,
            Some(false) => held = held.saturating_sub(1),
            None => {}
        }
        most = most.max(held);
    }
    most
}
