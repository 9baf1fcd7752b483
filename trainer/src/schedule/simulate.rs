//! Executes every stage's instructions against the others', without a device: whether they fit together, and how long they take.

use std::collections::VecDeque;

use super::Instruction;

/// How long a microbatch takes on a stage, in any unit of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// The forward pass.
    pub forward: f64,
    /// The backward pass; about twice the forward.
    pub backward: f64,
}

/// What a stage is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The forward pass of a microbatch.
    Forward,
    /// The backward pass of a microbatch.
    Backward,
}

/// A stretch of time in which a stage is busy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// With what.
    pub work: Work,
    /// On which microbatch.
    pub microbatch: usize,
    /// When it starts, in the unit of [`Costs`].
    pub start: f64,
    /// When it ends.
    pub end: f64,
}

/// When each stage does what. Messages take no time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The spans of each stage, in order.
    pub stages: Vec<Vec<Span>>,
    /// When the last stage ends.
    pub makespan: f64,
    /// The most messages that waited on one link, sent and not yet received: what a transport has to buffer.
    pub max_queued: usize,
}

impl Timeline {
    /// Idle time over busy time of a stage: `(p - 1) / m` for GPipe and 1F1B with equal stages.
    pub fn bubble(&self) -> f64 {
        let busy: f64 = self.stages.iter().flatten().map(|span| span.end - span.start).sum();
        (self.makespan * self.stages.len() as f64 - busy) / busy
    }
}

/// Why the stages' instructions do not fit together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A message goes to or comes from a stage that is not there.
    #[error("stage {stage} has {instruction:?}, but no such neighbour")]
    NoNeighbour {
        /// The stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
    },
    /// A stage receives one microbatch where another was sent.
    #[error("stage {stage} has {instruction:?}, but microbatch {sent} was sent")]
    OutOfOrder {
        /// The receiving stage.
        stage: usize,
        /// Its instruction.
        instruction: Instruction,
        /// The microbatch that lies on the link.
        sent: usize,
    },
    /// Work whose input is not there: a forward before its receive, a backward before its forward, a send before its work, or anything twice.
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
    /// A microbatch went forward and never backward.
    #[error("stage {stage} ends with the activations of {count} microbatches")]
    ActivationsLeft {
        /// The stage.
        stage: usize,
        /// How many.
        count: usize,
    },
}

/// How far a microbatch is on a stage.
#[derive(Clone, Copy, PartialEq)]
enum Progress {
    Waiting,
    Received,
    Forwarded,
    SentForward,
    ReceivedGradient,
    Backwarded,
    Done,
}

/// One stage's state in the simulation.
struct Stage {
    next: usize,
    clock: f64,
    microbatches: Vec<Progress>,
    spans: Vec<Span>,
}

/// A link's messages: the microbatch, and when it was sent.
type Link = VecDeque<(usize, f64)>;

/// Executes the lists of all stages, first stage first, with buffered sends and waiting receives.
///
/// # Errors
/// [`ScheduleError`], the first that is met.
pub fn simulate(lists: &[Vec<Instruction>], costs: Costs) -> Result<Timeline, ScheduleError> {
    let count = lists.iter().flatten().filter_map(microbatch_of).max().map_or(0, |most| most + 1);
    let new = |_| Stage { next: 0, clock: 0.0, microbatches: vec![Progress::Waiting; count], spans: vec![] };
    let mut machine = Machine {
        costs,
        stages: (0..lists.len()).map(new).collect(),
        forward: vec![Link::new(); lists.len()],
        backward: vec![Link::new(); lists.len()],
        max_queued: 0,
    };
    let unfinished = |machine: &Machine| -> Vec<(usize, Instruction)> {
        let next = |(stage, list): (usize, &Vec<Instruction>)| {
            list.get(machine.stages[stage].next).map(|&instruction| (stage, instruction))
        };
        lists.iter().enumerate().filter_map(next).collect()
    };
    loop {
        let mut moved = false;
        for (stage, list) in lists.iter().enumerate() {
            while let Some(&instruction) = list.get(machine.stages[stage].next) {
                if !machine.execute(stage, instruction)? {
                    break;
                }
                machine.stages[stage].next += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let waiting = unfinished(&machine);
    if !waiting.is_empty() {
        return Err(ScheduleError::Deadlock { waiting });
    }
    machine.finish()
}

/// The microbatch of an instruction that has one.
fn microbatch_of(instruction: &Instruction) -> Option<usize> {
    match *instruction {
        Instruction::RecvForward { microbatch }
        | Instruction::Forward { microbatch }
        | Instruction::SendForward { microbatch }
        | Instruction::RecvBackward { microbatch }
        | Instruction::Backward { microbatch }
        | Instruction::SendBackward { microbatch } => Some(microbatch),
        Instruction::ReduceGradients | Instruction::ReduceTiedEmbedding | Instruction::Step => None,
    }
}

struct Machine {
    costs: Costs,
    stages: Vec<Stage>,
    /// `forward[r]`: from stage r - 1 to r. `backward[r]`: from stage r + 1 to r.
    forward: Vec<Link>,
    backward: Vec<Link>,
    max_queued: usize,
}

impl Machine {
    /// Executes one instruction; false if it has to wait.
    fn execute(&mut self, stage: usize, instruction: Instruction) -> Result<bool, ScheduleError> {
        let (first, last) = (stage == 0, stage + 1 == self.stages.len());
        // What must have happened to the microbatch before, and what has after. The ends of the pipeline skip the messages they do not have.
        let (needs, becomes) = match instruction {
            Instruction::RecvForward { .. } => (Progress::Waiting, Progress::Received),
            Instruction::Forward { .. } if first => (Progress::Waiting, Progress::Forwarded),
            Instruction::Forward { .. } => (Progress::Received, Progress::Forwarded),
            Instruction::SendForward { .. } => (Progress::Forwarded, Progress::SentForward),
            Instruction::RecvBackward { .. } => (Progress::SentForward, Progress::ReceivedGradient),
            Instruction::Backward { .. } if last => (Progress::Forwarded, Progress::Backwarded),
            Instruction::Backward { .. } => (Progress::ReceivedGradient, Progress::Backwarded),
            Instruction::SendBackward { .. } => (Progress::Backwarded, Progress::Done),
            Instruction::ReduceGradients | Instruction::ReduceTiedEmbedding | Instruction::Step => {
                return Ok(true);
            }
        };
        let no_neighbour = match instruction {
            Instruction::RecvForward { .. } | Instruction::SendBackward { .. } => first,
            Instruction::SendForward { .. } | Instruction::RecvBackward { .. } => last,
            _ => false,
        };
        if no_neighbour {
            return Err(ScheduleError::NoNeighbour { stage, instruction });
        }
        let microbatch = microbatch_of(&instruction).expect("reductions and the step returned above");
        if self.stages[stage].microbatches[microbatch] != needs {
            return Err(ScheduleError::NotReady { stage, instruction });
        }
        let clock = self.stages[stage].clock;
        match instruction {
            Instruction::RecvForward { .. } | Instruction::RecvBackward { .. } => {
                let link = match instruction {
                    Instruction::RecvForward { .. } => &mut self.forward[stage],
                    _ => &mut self.backward[stage],
                };
                let Some(&(sent, at)) = link.front() else { return Ok(false) };
                if sent != microbatch {
                    return Err(ScheduleError::OutOfOrder { stage, instruction, sent });
                }
                link.pop_front();
                self.stages[stage].clock = clock.max(at);
            }
            Instruction::SendForward { .. } => self.send(true, stage + 1, microbatch, clock),
            Instruction::SendBackward { .. } => self.send(false, stage - 1, microbatch, clock),
            Instruction::Forward { .. } => self.work(stage, Work::Forward, microbatch),
            _ => self.work(stage, Work::Backward, microbatch),
        }
        self.stages[stage].microbatches[microbatch] = becomes;
        Ok(true)
    }

    fn send(&mut self, forward: bool, to: usize, microbatch: usize, at: f64) {
        let link = if forward { &mut self.forward[to] } else { &mut self.backward[to] };
        link.push_back((microbatch, at));
        self.max_queued = self.max_queued.max(link.len());
    }

    fn work(&mut self, stage: usize, work: Work, microbatch: usize) {
        let cost = match work {
            Work::Forward => self.costs.forward,
            Work::Backward => self.costs.backward,
        };
        let stage = &mut self.stages[stage];
        let start = stage.clock;
        stage.clock += cost;
        stage.spans.push(Span { work, microbatch, start, end: stage.clock });
    }

    /// Nothing may be left over.
    fn finish(self) -> Result<Timeline, ScheduleError> {
        for to in 0..self.stages.len() {
            if !self.forward[to].is_empty() {
                return Err(ScheduleError::Unreceived { from: to - 1, to, count: self.forward[to].len() });
            }
            if !self.backward[to].is_empty() {
                return Err(ScheduleError::Unreceived { from: to + 1, to, count: self.backward[to].len() });
            }
        }
        for (stage, state) in self.stages.iter().enumerate() {
            let held =
                |p: &&Progress| !matches!(p, Progress::Waiting | Progress::Backwarded | Progress::Done);
            let count = state.microbatches.iter().filter(held).count();
            if count > 0 {
                return Err(ScheduleError::ActivationsLeft { stage, count });
            }
        }
        let makespan = self.stages.iter().map(|stage| stage.clock).fold(0.0, f64::max);
        let stages = self.stages.into_iter().map(|stage| stage.spans).collect();
        Ok(Timeline { stages, makespan, max_queued: self.max_queued })
    }
}

#[cfg(test)]
mod tests {
    use super::Instruction::{Backward, Forward, RecvBackward, RecvForward, SendBackward, SendForward};
    use super::*;

    const COSTS: Costs = Costs { forward: 1.0, backward: 2.0 };

    /// A stage's list with all instructions on microbatch 0.
    fn zero(list: &[fn(usize) -> Instruction]) -> Vec<Instruction> {
        list.iter().map(|of| of(0)).collect()
    }

    const F: fn(usize) -> Instruction = |microbatch| Forward { microbatch };
    const B: fn(usize) -> Instruction = |microbatch| Backward { microbatch };
    const SF: fn(usize) -> Instruction = |microbatch| SendForward { microbatch };
    const SB: fn(usize) -> Instruction = |microbatch| SendBackward { microbatch };
    const RF: fn(usize) -> Instruction = |microbatch| RecvForward { microbatch };
    const RB: fn(usize) -> Instruction = |microbatch| RecvBackward { microbatch };

    #[test]
    fn two_stages_one_microbatch() {
        let timeline = simulate(&[zero(&[F, SF, RB, B]), zero(&[RF, F, B, SB])], COSTS).unwrap();
        assert_eq!(timeline.makespan, 6.0);
        assert_eq!(timeline.stages[1][0].start, 1.0);
        assert_eq!(timeline.stages[0][1].start, 4.0);
        assert_eq!(timeline.max_queued, 1);
    }

    #[test]
    fn a_message_that_nobody_sends_is_a_deadlock() {
        let error = simulate(&[zero(&[F, SF, RB, B]), zero(&[RF, F, B])], COSTS).unwrap_err();
        assert_eq!(error, ScheduleError::Deadlock { waiting: vec![(0, RB(0))] });
        let circle = [vec![RB(0), F(0)], vec![RF(0)]];
        // The first stage waits for a gradient before it has sent anything.
        assert_eq!(
            simulate(&circle, COSTS).unwrap_err(),
            ScheduleError::NotReady { stage: 0, instruction: RB(0) }
        );
        let circle = [vec![F(0), SF(0), RB(0), F(1), SF(1)], vec![RF(0), F(0), RF(1), F(1), B(0), SB(0)]];
        let waiting = vec![(0, RB(0)), (1, RF(1))];
        assert_eq!(simulate(&circle, COSTS).unwrap_err(), ScheduleError::Deadlock { waiting });
    }

    #[test]
    fn faults_are_told_apart() {
        let unreceived = simulate(&[zero(&[F, SF]), vec![]], COSTS).unwrap_err();
        assert_eq!(unreceived, ScheduleError::Unreceived { from: 0, to: 1, count: 1 });
        let order = simulate(&[vec![F(1), SF(1), F(0), SF(0)], vec![RF(0)]], COSTS).unwrap_err();
        assert_eq!(order, ScheduleError::OutOfOrder { stage: 1, instruction: RF(0), sent: 1 });
        let twice = simulate(&[zero(&[F, F])], COSTS).unwrap_err();
        assert_eq!(twice, ScheduleError::NotReady { stage: 0, instruction: F(0) });
        let left = simulate(&[zero(&[F])], COSTS).unwrap_err();
        assert_eq!(left, ScheduleError::ActivationsLeft { stage: 0, count: 1 });
        let alone = simulate(&[zero(&[F, SF])], COSTS).unwrap_err();
        assert_eq!(alone, ScheduleError::NoNeighbour { stage: 0, instruction: SF(0) });
    }
}
