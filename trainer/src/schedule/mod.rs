//! Pipeline schedules as pure generators: what each stage does in a step, in order (Narayanan et al., arXiv 2104.04473, section 2.2).
//!
//! A schedule is a list of [`Instruction`]s a stage; the engine executes them one by one. Sends are buffered and do not wait; receives wait. Between
//! two stages messages of one direction arrive in the order in which they were sent, which is the order of the microbatches.
//!
//! ```
//! use trainer::schedule::{Instruction as I, Schedule, instructions};
//! let last = instructions(Schedule::OneFOneB, 2, 2, 1);
//! assert_eq!(last[..4], [
//!     I::RecvForward { microbatch: 0 },
//!     I::Forward { microbatch: 0 },
//!     I::Backward { microbatch: 0 },
//!     I::SendBackward { microbatch: 0 },
//! ]);
//! ```
//!
//! Invariants, each property-tested through [`simulate`]: every microbatch runs forward and backward once on every stage; sends and receives match in
//! order; nothing deadlocks; with 1F1B stage `r` of `p` holds the activations of at most `min(p - r, m)` microbatches.

mod simulate;

pub use simulate::{Costs, ScheduleError, Span, Timeline, Work, simulate};

use serde::{Deserialize, Serialize};

/// In which order a pipeline runs its microbatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// All forwards, then all backwards (GPipe): holds `m` microbatches.
    #[serde(rename = "gpipe")]
    GPipe,
    /// A warm-up of forwards, then one forward and one backward in turn (PipeDream-Flush): the same bubble, `p - r` microbatches held.
    #[serde(rename = "1f1b")]
    OneFOneB,
}

/// One thing that a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// Wait for the microbatch's input from the stage before.
    RecvForward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Run this stage's layers on the microbatch, and keep its activations.
    Forward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Hand the output to the stage after.
    SendForward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Wait for the gradient of the microbatch's output from the stage after.
    RecvBackward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Run the microbatch backwards, add to the gradients, and let its activations go.
    Backward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Hand the gradient of the input to the stage before.
    SendBackward {
        /// Index of the microbatch, `0..m`.
        microbatch: usize,
    },
    /// Sum the gradients over the data-parallel group.
    ReduceGradients,
    /// Sum the tied embedding's gradient over first and last stage; only they have this instruction, and only where they differ.
    ReduceTiedEmbedding,
    /// Clip and update the weights.
    Step,
}

/// What stage `stage` of `stages` does in a step of `microbatches`.
pub fn instructions(
    schedule: Schedule,
    stages: usize,
    microbatches: usize,
    stage: usize,
) -> Vec<Instruction> {
    assert!(stage < stages, "stage {stage} of {stages}");
    let position = Position { first: stage == 0, last: stage + 1 == stages };
    let warm_up = match schedule {
        Schedule::GPipe => microbatches,
        Schedule::OneFOneB => (stages - stage - 1).min(microbatches),
    };
    let mut list = Vec::with_capacity(6 * microbatches + 3);
    (0..warm_up).for_each(|microbatch| position.forward(microbatch, &mut list));
    for microbatch in warm_up..microbatches {
        position.forward(microbatch, &mut list);
        position.backward(microbatch - warm_up, &mut list);
    }
    (microbatches - warm_up..microbatches).for_each(|microbatch| position.backward(microbatch, &mut list));
    list.push(Instruction::ReduceGradients);
    if position.first != position.last {
        list.push(Instruction::ReduceTiedEmbedding);
    }
    list.push(Instruction::Step);
    list
}

/// Which neighbours a stage has.
struct Position {
    first: bool,
    last: bool,
}

impl Position {
    fn forward(&self, microbatch: usize, list: &mut Vec<Instruction>) {
        if !self.first {
            list.push(Instruction::RecvForward { microbatch });
        }
        list.push(Instruction::Forward { microbatch });
        if !self.last {
            list.push(Instruction::SendForward { microbatch });
        }
    }

    fn backward(&self, microbatch: usize, list: &mut Vec<Instruction>) {
        if !self.last {
            list.push(Instruction::RecvBackward { microbatch });
        }
        list.push(Instruction::Backward { microbatch });
        if !self.first {
            list.push(Instruction::SendBackward { microbatch });
        }
    }
}

/// The most microbatches whose activations the stage holds at once: forward done, backward not yet.
pub fn max_in_flight(list: &[Instruction]) -> usize {
    let (mut held, mut most) = (0usize, 0);
    for instruction in list {
        match instruction {
            Instruction::Forward { .. } => held += 1,
            Instruction::Backward { .. } => held = held.saturating_sub(1),
            _ => {}
        }
        most = most.max(held);
    }
    most
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GPipe => "gpipe",
            Self::OneFOneB => "1f1b",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Instruction::{Backward, Forward, RecvBackward, RecvForward, SendBackward, SendForward};
    use super::*;
    use proptest::prelude::*;

    fn all_stages(schedule: Schedule, p: usize, m: usize) -> Vec<Vec<Instruction>> {
        (0..p).map(|stage| instructions(schedule, p, m, stage)).collect()
    }

    fn schedules() -> impl Strategy<Value = Schedule> {
        prop_oneof![Just(Schedule::GPipe), Just(Schedule::OneFOneB)]
    }

    /// The microbatches of every instruction of one kind, in the list's order.
    fn order(list: &[Instruction], of: impl Fn(&Instruction) -> Option<usize>) -> Vec<usize> {
        list.iter().filter_map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_microbatch_runs_once_and_messages_match(schedule in schedules(), p in 1usize..=64, m in 1usize..=64) {
            let stages = all_stages(schedule, p, m);
            let every: Vec<usize> = (0..m).collect();
            for list in &stages {
                prop_assert_eq!(&order(list, |i| match i { Forward { microbatch } => Some(*microbatch), _ => None }), &every);
                prop_assert_eq!(&order(list, |i| match i { Backward { microbatch } => Some(*microbatch), _ => None }), &every);
                prop_assert_eq!(list.iter().filter(|i| **i == Instruction::Step).count(), 1);
            }
            for pair in stages.windows(2) {
                let sent = order(&pair[0], |i| match i { SendForward { microbatch } => Some(*microbatch), _ => None });
                let got = order(&pair[1], |i| match i { RecvForward { microbatch } => Some(*microbatch), _ => None });
                prop_assert_eq!(sent, got);
                let sent = order(&pair[1], |i| match i { SendBackward { microbatch } => Some(*microbatch), _ => None });
                let got = order(&pair[0], |i| match i { RecvBackward { microbatch } => Some(*microbatch), _ => None });
                prop_assert_eq!(sent, got);
            }
        }

        #[test]
        fn nothing_deadlocks_and_the_bubble_is_the_published_one(
            schedule in schedules(), p in 1usize..=64, m in 1usize..=64, forward in 1u32..9, backward in 1u32..9,
        ) {
            let costs = Costs { forward: f64::from(forward), backward: f64::from(backward) };
            let timeline = simulate(&all_stages(schedule, p, m), costs).unwrap();
            // Whole numbers add up exactly. Section 2.2.1: bubble time / ideal time = (p - 1) / m.
            let ideal = m as f64 * (costs.forward + costs.backward);
            prop_assert_eq!(timeline.makespan, ideal + (p - 1) as f64 * (costs.forward + costs.backward));
            prop_assert!((timeline.bubble() - (p - 1) as f64 / m as f64).abs() < 1e-12);
        }

        #[test]
        fn activations_held(p in 1usize..=64, m in 1usize..=64) {
            for (stage, list) in all_stages(Schedule::OneFOneB, p, m).iter().enumerate() {
                prop_assert_eq!(max_in_flight(list), (p - stage).min(m));
            }
            for list in all_stages(Schedule::GPipe, p, m) {
                prop_assert_eq!(max_in_flight(&list), m);
            }
        }
    }

    #[test]
    fn the_tied_embedding_is_reduced_by_first_and_last_stage_only() {
        for (p, holders) in [(1, vec![]), (2, vec![0, 1]), (4, vec![0, 3])] {
            let with: Vec<usize> = (0..p)
                .filter(|&stage| {
                    instructions(Schedule::OneFOneB, p, 3, stage).contains(&Instruction::ReduceTiedEmbedding)
                })
                .collect();
            assert_eq!(with, holders, "{p} stages");
        }
    }

    #[test]
    fn one_stage_alternates_and_talks_to_nobody() {
        let list = instructions(Schedule::OneFOneB, 1, 2, 0);
        let work = [Forward { microbatch: 0 }, Backward { microbatch: 0 }, Forward { microbatch: 1 }];
        assert_eq!(list[..3], work);
        assert_eq!(list.len(), 6);
    }
}
