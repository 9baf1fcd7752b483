//! Executes every stage's instructions against the others', without a device: whether they fit together, and how long they take.

mod error;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use error::ScheduleError;

use super::{Instruction, Pipeline, Unit};

/// How long a whole stage takes with a microbatch, in any unit of time; a chunk takes its share `1 / v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// The forward pass, `T_F`.
    pub forward: f64,
    /// The gradient of the input, `T_B`; about as long as the forward.
    pub backward_input: f64,
    /// The gradient of the weights, `T_W`; shorter by what the attention takes, which has none. A [`Instruction::Backward`] takes both.
    pub backward_weight: f64,
}

/// What a stage is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The forward pass of a unit.
    Forward,
    /// Both gradients of a unit.
    Backward,
    /// The gradient of a unit's input.
    BackwardInput,
    /// The gradient of the weights.
    BackwardWeight,
}

/// A stretch of time in which a stage is busy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// With what.
    pub work: Work,
    /// On which microbatch, on which chunk.
    pub unit: Unit,
    /// When it starts, in the unit of [`Costs`].
    pub start: f64,
    /// When it ends.
    pub end: f64,
}

/// Messages on their way into a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Activations, from the stage before.
    pub forward: usize,
    /// Gradients, from the stage after.
    pub backward: usize,
}

/// When each stage does what. Messages take no time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The spans of each stage, in order.
    pub stages: Vec<Vec<Span>>,
    /// When the last stage ends.
    pub makespan: f64,
}

impl Timeline {
    /// Idle time over busy time, for the schedules of this module with equal stages that of [`Schedule`](super::Schedule): `(p - 1) / m` for 1F1B.
    pub fn bubble(&self) -> f64 {
        let busy: f64 = self.stages.iter().flatten().map(|span| span.end - span.start).sum();
        (self.makespan * self.stages.len() as f64 - busy) / busy
    }
}

/// Executes the lists of all stages, first stage first, with buffered sends and waiting receives.
///
/// # Errors
/// [`ScheduleError`], the first that is met.
///
/// # Panics
/// If there are not as many lists as stages.
pub fn simulate(
    pipeline: &Pipeline,
    lists: &[Vec<Instruction>],
    costs: Costs,
) -> Result<Timeline, ScheduleError> {
    assert_eq!(lists.len(), pipeline.stages, "a list a stage");
    let mut machine = Machine::new(pipeline, costs);
    while run_ahead(&mut machine, lists, None)? {}
    machine.finish(lists).map(|(timeline, _)| timeline)
}

/// The most messages that are on their way into a stage at once, sent and not yet received: what has to be buffered. They queue most where the stage moves
/// only when nobody else can.
///
/// # Errors
/// [`ScheduleError`], the first that is met.
///
/// # Panics
/// If there are not as many lists as stages.
pub fn queued(
    pipeline: &Pipeline,
    lists: &[Vec<Instruction>],
    stage: usize,
) -> Result<Queued, ScheduleError> {
    assert_eq!(lists.len(), pipeline.stages, "a list a stage");
    let costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0 };
    let mut machine = Machine::new(pipeline, costs);
    loop {
        while run_ahead(&mut machine, lists, Some(stage))? {}
        if !machine.advance(stage, &lists[stage])? {
            break;
        }
    }
    machine.finish(lists).map(|(_, queued)| queued[stage])
}

/// Lets each stage in turn, but for one, go as far as its receives let it; false if none moved.
fn run_ahead(
    machine: &mut Machine<'_>,
    lists: &[Vec<Instruction>],
    but: Option<usize>,
) -> Result<bool, ScheduleError> {
    let mut moved = false;
    for (stage, list) in lists.iter().enumerate().filter(|(stage, _)| Some(*stage) != but) {
        while machine.advance(stage, list)? {
            moved = true;
        }
    }
    Ok(moved)
}

/// How far a unit is; each step needs the one before, but that the ends of the pipeline lack the messages that they have no neighbour for.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Progress {
    Waiting,
    Received,
    Forwarded,
    SentForward,
    ReceivedGradient,
    Backwarded,
    SentBackward,
}

/// A unit's state.
#[derive(Clone, Copy)]
struct State {
    progress: Progress,
    /// Whether its weights' gradient is done.
    weights: bool,
}

/// One stage's state in the simulation.
struct Stage {
    next: usize,
    clock: f64,
    /// `[v m]`: chunk after chunk.
    units: Vec<State>,
    spans: Vec<Span>,
}

/// A lane into a stage: the unit as the receiver calls it, and when it was sent.
type Lane = VecDeque<(Unit, f64)>;

struct Machine<'a> {
    pipeline: &'a Pipeline,
    costs: Costs,
    stages: Vec<Stage>,
    /// `forward[r]`: from the stage before `r`, which for the first is the last.
    forward: Vec<Lane>,
    /// `backward[r]`: from the stage after `r`, which for the last is the first.
    backward: Vec<Lane>,
    queued: Vec<Queued>,
}

impl<'a> Machine<'a> {
    fn new(pipeline: &'a Pipeline, costs: Costs) -> Self {
        let count = pipeline.stages;
        let units = pipeline.chunks * pipeline.microbatches;
        let state = State { progress: Progress::Waiting, weights: false };
        let stage = || Stage { next: 0, clock: 0.0, units: vec![state; units], spans: vec![] };
        Self {
            pipeline,
            costs,
            stages: (0..count).map(|_| stage()).collect(),
            forward: vec![Lane::new(); count],
            backward: vec![Lane::new(); count],
            queued: vec![Queued::default(); count],
        }
    }

    /// Executes a stage's next instruction; false if it has to wait, or there is none.
    fn advance(&mut self, stage: usize, list: &[Instruction]) -> Result<bool, ScheduleError> {
        let Some(&instruction) = list.get(self.stages[stage].next) else { return Ok(false) };
        let done = self.execute(stage, instruction)?;
        self.stages[stage].next += usize::from(done);
        Ok(done)
    }

    /// Executes one instruction; false if it has to wait.
    fn execute(&mut self, stage: usize, instruction: Instruction) -> Result<bool, ScheduleError> {
        let Some(unit) = instruction.unit() else {
            // What is reduced and applied has to be there.
            return self.check_finished(stage).map(|()| true);
        };
        let Pipeline { chunks, microbatches, .. } = *self.pipeline;
        if unit.chunk >= chunks || unit.microbatch >= microbatches {
            return Err(ScheduleError::NoUnit { stage, instruction });
        }
        let previous = self.pipeline.previous(stage, unit.chunk);
        let next = self.pipeline.next(stage, unit.chunk);
        let index = unit.chunk * microbatches + unit.microbatch;
        let state = self.stages[stage].units[index];
        if !ready(state, instruction, previous.is_none(), next.is_none()) {
            return Err(ScheduleError::NotReady { stage, instruction });
        }
        let neighbour = |place: Option<_>| place.ok_or(ScheduleError::NoNeighbour { stage, instruction });
        let mut after = state;
        match instruction {
            Instruction::RecvForward(_) => {
                neighbour(previous)?;
                if !self.receive(true, stage, unit, instruction)? {
                    return Ok(false);
                }
                after.progress = Progress::Received;
            }
            Instruction::Forward(_) => {
                self.work(stage, Work::Forward, unit);
                after.progress = Progress::Forwarded;
            }
            Instruction::SendForward(_) => {
                self.send(true, stage, neighbour(next)?, unit);
                after.progress = Progress::SentForward;
            }
            Instruction::RecvBackward(_) => {
                neighbour(next)?;
                if !self.receive(false, stage, unit, instruction)? {
                    return Ok(false);
                }
                after.progress = Progress::ReceivedGradient;
            }
            Instruction::Backward(_) => {
                self.work(stage, Work::Backward, unit);
                after = State { progress: Progress::Backwarded, weights: true };
            }
            Instruction::BackwardInput(_) => {
                self.work(stage, Work::BackwardInput, unit);
                after.progress = Progress::Backwarded;
            }
            Instruction::BackwardWeight(_) => {
                self.work(stage, Work::BackwardWeight, unit);
                after.weights = true;
            }
            Instruction::SendBackward(_) => {
                self.send(false, stage, neighbour(previous)?, unit);
                after.progress = Progress::SentBackward;
            }
            Instruction::ReduceTiedEmbedding | Instruction::ReduceGradients | Instruction::Step => {}
        }
        self.stages[stage].units[index] = after;
        Ok(true)
    }

    /// Takes the next message of the lane into the stage; false if there is none.
    fn receive(
        &mut self,
        forward: bool,
        stage: usize,
        unit: Unit,
        instruction: Instruction,
    ) -> Result<bool, ScheduleError> {
        let lane = if forward { &mut self.forward[stage] } else { &mut self.backward[stage] };
        let Some((sent, at)) = lane.pop_front() else { return Ok(false) };
        if sent != unit {
            return Err(ScheduleError::OutOfOrder { stage, instruction, sent });
        }
        let clock = &mut self.stages[stage].clock;
        *clock = clock.max(at);
        Ok(true)
    }

    fn send(&mut self, forward: bool, stage: usize, (to, chunk): (usize, usize), unit: Unit) {
        let Queued { forward: activations, backward: gradients } = &mut self.queued[to];
        let (lane, most) = match forward {
            true => (&mut self.forward[to], activations),
            false => (&mut self.backward[to], gradients),
        };
        lane.push_back((Unit { chunk, ..unit }, self.stages[stage].clock));
        *most = lane.len().max(*most);
    }

    fn work(&mut self, stage: usize, work: Work, unit: Unit) {
        let Costs { forward, backward_input, backward_weight } = self.costs;
        let cost = match work {
            Work::Forward => forward,
            Work::Backward => backward_input + backward_weight,
            Work::BackwardInput => backward_input,
            Work::BackwardWeight => backward_weight,
        };
        let stage = &mut self.stages[stage];
        let start = stage.clock;
        stage.clock += cost / self.pipeline.chunks as f64;
        stage.spans.push(Span { work, unit, start, end: stage.clock });
    }

    /// Whether every unit of the stage has gone all its way.
    fn check_finished(&self, stage: usize) -> Result<(), ScheduleError> {
        let units = &self.stages[stage].units;
        let count = |is: &dyn Fn(&State) -> bool| units.iter().filter(|&state| is(state)).count();
        match count(&|state| state.progress < Progress::Forwarded) {
            0 => {}
            count => return Err(ScheduleError::NotRun { stage, count }),
        }
        match count(&|state| state.progress < Progress::Backwarded) {
            0 => {}
            count => return Err(ScheduleError::ActivationsLeft { stage, count }),
        }
        match count(&|state| !state.weights) {
            0 => Ok(()),
            count => Err(ScheduleError::WeightGradientsLeft { stage, count }),
        }
    }

    /// Nothing may be left over.
    fn finish(self, lists: &[Vec<Instruction>]) -> Result<(Timeline, Vec<Queued>), ScheduleError> {
        let next = |(stage, list): (usize, &Vec<Instruction>)| {
            list.get(self.stages[stage].next).map(|&instruction| (stage, instruction))
        };
        let waiting: Vec<_> = lists.iter().enumerate().filter_map(next).collect();
        if !waiting.is_empty() {
            return Err(ScheduleError::Deadlock { waiting });
        }
        let count = self.stages.len();
        for to in 0..count {
            let (before, after) = ((to + count - 1) % count, (to + 1) % count);
            for (lane, from) in [(&self.forward[to], before), (&self.backward[to], after)] {
                if !lane.is_empty() {
                    return Err(ScheduleError::Unreceived { from, to, count: lane.len() });
                }
            }
        }
        (0..count).try_for_each(|stage| self.check_finished(stage))?;
        let makespan = self.stages.iter().map(|stage| stage.clock).fold(0.0, f64::max);
        let stages = self.stages.into_iter().map(|stage| stage.spans).collect();
        Ok((Timeline { stages, makespan }, self.queued))
    }
}

/// Whether a unit in this state can do this, `first` and `last` in the pipeline or between.
fn ready(state: State, instruction: Instruction, first: bool, last: bool) -> bool {
    let needed = match instruction {
        Instruction::RecvForward(_) => Progress::Waiting,
        Instruction::Forward(_) if first => Progress::Waiting,
        Instruction::Forward(_) => Progress::Received,
        Instruction::SendForward(_) => Progress::Forwarded,
        Instruction::RecvBackward(_) => Progress::SentForward,
        Instruction::Backward(_) | Instruction::BackwardInput(_) if last => Progress::Forwarded,
        Instruction::Backward(_) | Instruction::BackwardInput(_) => Progress::ReceivedGradient,
        Instruction::SendBackward(_) => Progress::Backwarded,
        Instruction::BackwardWeight(_) => return state.progress >= Progress::Backwarded && !state.weights,
        Instruction::ReduceTiedEmbedding | Instruction::ReduceGradients | Instruction::Step => return true,
    };
    state.progress == needed
}
