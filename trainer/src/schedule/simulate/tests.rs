use super::super::{Instruction as I, Pipeline, Schedule, Unit};
use super::*;

const COSTS: Costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0 };

fn of(microbatch: usize) -> Unit {
    Unit { chunk: 0, microbatch }
}

const F: fn(usize) -> I = |i| I::Forward(of(i));
const B: fn(usize) -> I = |i| I::Backward(of(i));
const BI: fn(usize) -> I = |i| I::BackwardInput(of(i));
const BW: fn(usize) -> I = |i| I::BackwardWeight(of(i));
const SF: fn(usize) -> I = |i| I::SendForward(of(i));
const SB: fn(usize) -> I = |i| I::SendBackward(of(i));
const RF: fn(usize) -> I = |i| I::RecvForward(of(i));
const RB: fn(usize) -> I = |i| I::RecvBackward(of(i));

/// Simulates hand-made lists with one chunk.
fn run(microbatches: usize, lists: &[&[I]]) -> Result<Timeline, ScheduleError> {
    let pipeline = Pipeline { schedule: Schedule::OneFOneB, stages: lists.len(), chunks: 1, microbatches };
    let lists: Vec<Vec<I>> = lists.iter().map(|list| list.to_vec()).collect();
    simulate(&pipeline, &lists, COSTS)
}

#[test]
fn two_stages_one_microbatch() {
    let timeline = run(1, &[&[F(0), SF(0), RB(0), B(0)], &[RF(0), F(0), B(0), SB(0)]]).unwrap();
    assert_eq!(timeline.makespan, 6.0);
    assert_eq!(timeline.stages[1][0].start, 1.0);
    assert_eq!(timeline.stages[0][1], Span { work: Work::Backward, unit: of(0), start: 4.0, end: 6.0 });
}

#[test]
fn a_split_backward_sends_before_the_weights() {
    let first = [F(0), SF(0), RB(0), BI(0), BW(0), I::ReduceGradients];
    let timeline = run(1, &[&first, &[RF(0), F(0), BI(0), SB(0), BW(0), I::Step]]).unwrap();
    assert_eq!(timeline.makespan, 5.0);
    assert_eq!(timeline.stages[0][2], Span { work: Work::BackwardWeight, unit: of(0), start: 4.0, end: 5.0 });
}

#[test]
fn a_chunk_takes_its_share_and_lanes_are_shared() {
    let pipeline = Pipeline { schedule: Schedule::Interleaved, stages: 2, chunks: 2, microbatches: 2 };
    let mut lists = pipeline.all_instructions();
    let timeline = simulate(&pipeline, &lists, COSTS).unwrap();
    // (m + (p - 1) / v) (T_F + T_B + T_W)
    assert_eq!(timeline.makespan, 2.5 * 3.0);
    assert!(
        timeline.stages.iter().flatten().any(|span| span.unit.chunk == 1 && span.end - span.start == 0.5)
    );
    // The second stage hands on the second microbatch's output first.
    let send = |microbatch| I::SendForward(Unit { chunk: 0, microbatch });
    let at = |list: &[I], i| list.iter().position(|&instruction| instruction == i).unwrap();
    let (first, second) = (at(&lists[1], send(0)), at(&lists[1], send(1)));
    lists[1].remove(first);
    lists[1].insert(second, send(0));
    let error = simulate(&pipeline, &lists, COSTS).unwrap_err();
    let (wanted, sent) = (Unit { chunk: 1, microbatch: 0 }, Unit { chunk: 1, microbatch: 1 });
    assert_eq!(error, ScheduleError::OutOfOrder { stage: 0, instruction: I::RecvForward(wanted), sent });
}

#[test]
fn a_message_for_another_chunk_is_out_of_order() {
    let pipeline = Pipeline { schedule: Schedule::Interleaved, stages: 2, chunks: 3, microbatches: 2 };
    let mut lists = pipeline.all_instructions();
    let (sent, wanted) = (Unit { chunk: 1, microbatch: 0 }, Unit { chunk: 2, microbatch: 0 });
    let place = |unit| lists[0].iter().position(|&i| i == I::RecvForward(unit)).unwrap();
    let (early, late) = (place(sent), place(wanted));
    lists[0].swap(early, late);
    let error = simulate(&pipeline, &lists, COSTS).unwrap_err();
    assert_eq!(error, ScheduleError::OutOfOrder { stage: 0, instruction: I::RecvForward(wanted), sent });
}

#[test]
fn a_message_that_nobody_sends_is_a_deadlock() {
    let error = run(1, &[&[F(0), SF(0), RB(0), B(0)], &[RF(0), F(0), B(0)]]).unwrap_err();
    assert_eq!(error, ScheduleError::Deadlock { waiting: vec![(0, RB(0))] });
    // The first stage waits for a gradient before it has sent anything.
    let early = run(1, &[&[RB(0), F(0)], &[RF(0)]]).unwrap_err();
    assert_eq!(early, ScheduleError::NotReady { stage: 0, instruction: RB(0) });
    let circle = run(2, &[&[F(0), SF(0), RB(0), F(1), SF(1)], &[RF(0), F(0), RF(1), F(1), B(0), SB(0)]]);
    assert_eq!(circle.unwrap_err(), ScheduleError::Deadlock { waiting: vec![(0, RB(0)), (1, RF(1))] });
}

#[test]
fn messages_that_do_not_fit() {
    let unreceived = run(1, &[&[F(0), SF(0)], &[]]).unwrap_err();
    assert_eq!(unreceived, ScheduleError::Unreceived { from: 0, to: 1, count: 1 });
    let order = run(2, &[&[F(1), SF(1), F(0), SF(0)], &[RF(0)]]).unwrap_err();
    assert_eq!(order, ScheduleError::OutOfOrder { stage: 1, instruction: RF(0), sent: of(1) });
    let alone = run(1, &[&[F(0), SF(0)]]).unwrap_err();
    assert_eq!(alone, ScheduleError::NoNeighbour { stage: 0, instruction: SF(0) });
    let beyond = run(1, &[&[F(1)]]).unwrap_err();
    assert_eq!(beyond, ScheduleError::NoUnit { stage: 0, instruction: F(1) });
}

#[test]
fn work_that_is_early_doubled_or_missing() {
    let twice = run(1, &[&[F(0), F(0)]]).unwrap_err();
    assert_eq!(twice, ScheduleError::NotReady { stage: 0, instruction: F(0) });
    let weight_first = run(1, &[&[F(0), BW(0), BI(0)]]).unwrap_err();
    assert_eq!(weight_first, ScheduleError::NotReady { stage: 0, instruction: BW(0) });
    let weight_twice = run(1, &[&[F(0), B(0), BW(0)]]).unwrap_err();
    assert_eq!(weight_twice, ScheduleError::NotReady { stage: 0, instruction: BW(0) });
    let no_weight = run(1, &[&[F(0), BI(0)]]).unwrap_err();
    assert_eq!(no_weight, ScheduleError::WeightGradientsLeft { stage: 0, count: 1 });
    let no_backward = run(1, &[&[F(0)]]).unwrap_err();
    assert_eq!(no_backward, ScheduleError::ActivationsLeft { stage: 0, count: 1 });
    let not_run = run(2, &[&[F(0), B(0)]]).unwrap_err();
    assert_eq!(not_run, ScheduleError::NotRun { stage: 0, count: 1 });
}

#[test]
fn what_is_reduced_has_to_be_there() {
    for collective in [I::ReduceTiedEmbedding, I::ReduceGradients, I::Step] {
        let early = run(1, &[&[F(0), BI(0), collective, BW(0)]]).unwrap_err();
        assert_eq!(early, ScheduleError::WeightGradientsLeft { stage: 0, count: 1 });
    }
}
