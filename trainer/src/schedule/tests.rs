use std::collections::HashMap;

use proptest::prelude::*;

use super::Instruction as I;
use super::*;

const ALL: [Schedule; 4] = [Schedule::GPipe, Schedule::OneFOneB, Schedule::Interleaved, Schedule::ZbH1];

/// The nearest pipeline to this that the schedule can run.
fn fitted(schedule: Schedule, stages: usize, chunks: usize, microbatches: usize) -> Pipeline {
    match schedule {
        Schedule::Interleaved => {
            let stages = stages.max(2);
            Pipeline { schedule, stages, chunks, microbatches: (microbatches / stages).max(1) * stages }
        }
        _ => Pipeline { schedule, stages, chunks: 1, microbatches },
    }
}

/// Any pipeline with sizes up to `most`.
fn pipelines(schedules: &'static [Schedule], most: usize) -> impl Strategy<Value = Pipeline> {
    (prop::sample::select(schedules), 1..=most, 1..=most, 1..=most)
        .prop_map(|(schedule, p, v, m)| fitted(schedule, p, v, m))
}

/// Microbatches of the chunk's instructions that `which` picks, in the list's order.
fn order(list: &[I], chunk: usize, which: impl Fn(&I) -> bool) -> Vec<usize> {
    let of_chunk = |i: &&I| which(i) && i.unit().is_some_and(|unit| unit.chunk == chunk);
    list.iter().filter(of_chunk).filter_map(|i| i.unit().map(|unit| unit.microbatch)).collect()
}

/// Sender, receiver, and whether forward: what travels there, in order, as the receiver calls it.
type Lanes = HashMap<(usize, usize, bool), Vec<Unit>>;

/// What is sent and what is received in each lane.
fn lanes(pipeline: &Pipeline, lists: &[Vec<I>]) -> (Lanes, Lanes) {
    let (mut sent, mut received) = (Lanes::new(), Lanes::new());
    for (stage, list) in lists.iter().enumerate() {
        for instruction in list {
            let Some(unit) = instruction.unit() else { continue };
            let (previous, next) = (pipeline.previous(stage, unit.chunk), pipeline.next(stage, unit.chunk));
            let (lanes, key, chunk) = match instruction {
                I::SendForward(_) => (&mut sent, (stage, next.unwrap().0, true), next.unwrap().1),
                I::SendBackward(_) => (&mut sent, (stage, previous.unwrap().0, false), previous.unwrap().1),
                I::RecvForward(_) => (&mut received, (previous.unwrap().0, stage, true), unit.chunk),
                I::RecvBackward(_) => (&mut received, (next.unwrap().0, stage, false), unit.chunk),
                _ => continue,
            };
            lanes.entry(key).or_default().push(Unit { chunk, ..unit });
        }
    }
    (sent, received)
}

/// The most units whose activations the stage holds at once, over all its chunks.
fn held(list: &[I]) -> usize {
    let (mut held, mut most) = (0usize, 0);
    for instruction in list {
        match instruction {
            I::Forward(_) => held += 1,
            I::Backward(_) | I::BackwardWeight(_) => held -= 1,
            _ => {}
        }
        most = most.max(held);
    }
    most
}

/// Whole numbers add up exactly; a chunk's share of them too if they are multiples of the chunks.
fn costs(pipeline: &Pipeline, forward: u32, backward_input: u32, backward_weight: u32) -> Costs {
    let cost = |n: u32| f64::from(n) * pipeline.chunks as f64;
    Costs {
        forward: cost(forward),
        backward_input: cost(backward_input),
        backward_weight: cost(backward_weight),
    }
}

fn makespan(pipeline: &Pipeline, costs: Costs) -> f64 {
    simulate(pipeline, &pipeline.all_instructions(), costs).unwrap().makespan
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_unit_runs_once_in_ascending_order_and_messages_match(pipeline in pipelines(&ALL, 64)) {
        prop_assert_eq!(pipeline.validate(), Ok(()));
        let lists = pipeline.all_instructions();
        let every: Vec<usize> = (0..pipeline.microbatches).collect();
        for list in &lists {
            for chunk in 0..pipeline.chunks {
                prop_assert_eq!(&order(list, chunk, |i| matches!(i, I::Forward(_))), &every);
                let input = |i: &I| matches!(i, I::Backward(_) | I::BackwardInput(_));
                let weight = |i: &I| matches!(i, I::Backward(_) | I::BackwardWeight(_));
                prop_assert_eq!(&order(list, chunk, input), &every);
                prop_assert_eq!(&order(list, chunk, weight), &every);
            }
            let split = list.iter().any(|i| matches!(i, I::BackwardInput(_) | I::BackwardWeight(_)));
            prop_assert_eq!(split, pipeline.schedule == Schedule::ZbH1);
        }
        let (sent, received) = lanes(&pipeline, &lists);
        prop_assert_eq!(sent, received);
    }

    #[test]
    fn a_receive_is_before_its_work_and_a_send_behind(pipeline in pipelines(&ALL, 24)) {
        for list in pipeline.all_instructions() {
            for pair in list.windows(2) {
                let fits = match pair[0] {
                    I::RecvForward(unit) => pair[1] == I::Forward(unit),
                    I::RecvBackward(unit) => [I::Backward(unit), I::BackwardInput(unit)].contains(&pair[1]),
                    _ => true,
                } && match pair[1] {
                    I::SendForward(unit) => pair[0] == I::Forward(unit),
                    I::SendBackward(unit) => [I::Backward(unit), I::BackwardInput(unit)].contains(&pair[0]),
                    _ => true,
                };
                prop_assert!(fits, "{pair:?}");
            }
        }
    }

    /// Nothing deadlocks, and the time is the published one: sections 2.2.1 and 2.2.2 of 2104.04473, 2.1 of 2401.10241.
    #[test]
    fn the_step_takes_the_published_time(pipeline in pipelines(&ALL, 64), f in 1u32..9, b in 1u32..9, w in 0u32..9) {
        let w = if pipeline.schedule == Schedule::ZbH1 { w.min(f).min(b) } else { w };
        let costs = costs(&pipeline, f, b, w);
        let (p, v, m) = (pipeline.stages as f64, pipeline.chunks as f64, pipeline.microbatches as f64);
        let Costs { forward, backward_input, backward_weight } = costs;
        let stage = forward + backward_input + backward_weight;
        let wait = match pipeline.schedule {
            Schedule::ZbH1 => (p - 1.0) * (forward + backward_input) - (p.min(m) - 1.0) * backward_weight,
            _ => (p - 1.0) * stage / v,
        };
        let timeline = simulate(&pipeline, &pipeline.all_instructions(), costs).unwrap();
        prop_assert_eq!(timeline.makespan, m * stage + wait);
        prop_assert!((timeline.bubble() - wait / (m * stage)).abs() < 1e-12);
    }

    /// The critical path of ZB-H1 bounds the time from below whatever the costs.
    #[test]
    fn zb_h1_is_never_quicker_than_its_critical_path(
        pipeline in pipelines(&[Schedule::ZbH1], 24), f in 1u32..9, b in 1u32..9, w in 0u32..30,
    ) {
        let costs = costs(&pipeline, f, b, w);
        let (p, m) = (pipeline.stages as f64, pipeline.microbatches as f64);
        let both = costs.forward + costs.backward_input;
        let path = (m + p - 1.0) * both + (m - p.min(m) + 1.0) * costs.backward_weight;
        prop_assert!(makespan(&pipeline, costs) >= path);
    }

    #[test]
    fn activations_held(pipeline in pipelines(&ALL, 64)) {
        let Pipeline { schedule, stages: p, chunks: v, microbatches: m } = pipeline;
        for (r, list) in pipeline.all_instructions().iter().enumerate() {
            let most = match schedule {
                Schedule::GPipe => m,
                Schedule::OneFOneB => (p - r).min(m),
                Schedule::Interleaved => (interleaved::warm_up(p, v, r) + 1).min(m * v),
                Schedule::ZbH1 => p.min(m),
            };
            prop_assert_eq!(held(list), most, "stage {}", r);
            if v == 1 {
                prop_assert_eq!(max_in_flight(list, 0), most);
            }
            for chunk in 0..v {
                prop_assert!(max_in_flight(list, chunk) <= most.min(m));
                let owed = if schedule == Schedule::ZbH1 { (r + 1).min(m) } else { 0 };
                prop_assert_eq!(max_deferred(list, chunk), owed);
            }
        }
    }

    #[test]
    fn reductions_and_the_step_come_last_and_the_tied_embedding_at_its_holders(pipeline in pipelines(&ALL, 24)) {
        let p = pipeline.stages;
        for (stage, list) in pipeline.all_instructions().iter().enumerate() {
            let tail: Vec<I> = list.iter().copied().filter(|i| i.unit().is_none()).collect();
            let holder = p > 1 && (stage == 0 || stage == p - 1);
            let expected = [I::ReduceTiedEmbedding, I::ReduceGradients, I::Step];
            prop_assert_eq!(&tail, &expected[usize::from(!holder)..]);
            prop_assert!(list.ends_with(&tail));
        }
    }

    /// No instruction but the collective ones can be left out or said twice.
    #[test]
    fn a_missing_or_doubled_instruction_is_found(
        pipeline in pipelines(&ALL, 8), stage: prop::sample::Index, at: prop::sample::Index, twice: bool,
    ) {
        let mut lists = pipeline.all_instructions();
        let list = &mut lists[stage.index(pipeline.stages)];
        let work = list.iter().filter(|i| i.unit().is_some()).count();
        let at = at.index(work);
        if twice {
            list.insert(at, list[at]);
        } else {
            list.remove(at);
        }
        prop_assert!(simulate(&pipeline, &lists, costs(&pipeline, 1, 1, 1)).is_err());
    }

    /// Two receives of a lane the wrong way round.
    #[test]
    fn a_reordered_receive_is_found(pipeline in pipelines(&ALL, 8), at: prop::sample::Index) {
        let Pipeline { schedule, stages, chunks, microbatches } = pipeline;
        let pipeline = fitted(schedule, stages.max(2), chunks, microbatches.max(2));
        let mut lists = pipeline.all_instructions();
        // Stage and places of each two receives that follow each other in a lane.
        let mut pairs = Vec::new();
        for (stage, list) in lists.iter().enumerate() {
            for of_lane in [|i: &I| matches!(i, I::RecvForward(_)), |i: &I| matches!(i, I::RecvBackward(_))] {
                let places: Vec<usize> = (0..list.len()).filter(|&i| of_lane(&list[i])).collect();
                pairs.extend(places.windows(2).map(|pair| (stage, pair[0], pair[1])));
            }
        }
        let (stage, first, second) = *at.get(&pairs);
        let (sent, instruction) = (lists[stage][first].unit().unwrap(), lists[stage][second]);
        lists[stage].swap(first, second);
        let error = simulate(&pipeline, &lists, costs(&pipeline, 1, 1, 1)).unwrap_err();
        let not_ready = ScheduleError::NotReady { stage, instruction };
        prop_assert!(error == ScheduleError::OutOfOrder { stage, instruction, sent } || error == not_ready, "{error}");
    }

    /// Against every speed of the receiver: all other stages run as far as they can before each of its steps.
    #[test]
    fn no_timing_queues_more(pipeline in pipelines(&ALL, 7)) {
        let lists = pipeline.all_instructions();
        for slow in 0..pipeline.stages {
            prop_assert_eq!(pipeline.queued(slow).unwrap(), queued_before(&pipeline, &lists, slow));
        }
    }
}

/// The most messages into stage `slow`, if it moves only when nobody else can.
fn queued_before(pipeline: &Pipeline, lists: &[Vec<I>], slow: usize) -> Queued {
    let mut next = vec![0; lists.len()];
    let mut queues = HashMap::<(usize, usize, bool), usize>::new();
    let mut most = Queued::default();
    // One instruction of a stage; false if it waits or is through.
    let mut advance = |stage: usize, most: &mut Queued| {
        let Some(instruction) = lists[stage].get(next[stage]) else { return false };
        let chunk = instruction.unit().map_or(0, |unit| unit.chunk);
        let previous = pipeline.previous(stage, chunk).map(|place| place.0);
        let after = pipeline.next(stage, chunk).map(|place| place.0);
        match instruction {
            I::SendForward(_) | I::SendBackward(_) => {
                let forward = matches!(instruction, I::SendForward(_));
                let to = if forward { after } else { previous }.unwrap();
                let queue = queues.entry((stage, to, forward)).or_default();
                *queue += 1;
                let most = if forward { &mut most.forward } else { &mut most.backward };
                *most = if to == slow { (*most).max(*queue) } else { *most };
            }
            I::RecvForward(_) | I::RecvBackward(_) => {
                let forward = matches!(instruction, I::RecvForward(_));
                let from = if forward { previous } else { after }.unwrap();
                let queue = queues.entry((from, stage, forward)).or_default();
                if *queue == 0 {
                    return false;
                }
                *queue -= 1;
            }
            _ => {}
        }
        next[stage] += 1;
        true
    };
    loop {
        while (0..lists.len()).filter(|&stage| stage != slow).any(|stage| advance(stage, &mut most)) {}
        if !advance(slow, &mut most) {
            return most;
        }
    }
}

#[test]
fn names_are_those_of_the_configuration() {
    for (schedule, name) in ALL.into_iter().zip(["gpipe", "1f1b", "interleaved", "zb-h1"]) {
        assert_eq!(schedule.to_string(), name);
        assert_eq!(serde_json::to_string(&schedule).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<Schedule>(&format!("\"{name}\"")).unwrap(), schedule);
    }
}

/// Figure 3 of 2401.10241, above: four stages, eight microbatches; F, B and W as long as each other.
#[test]
fn zb_h1_is_the_figure() {
    let pipeline = Pipeline { schedule: Schedule::ZbH1, stages: 4, chunks: 1, microbatches: 8 };
    let text = |stage| {
        let work = pipeline.instructions(stage).into_iter().filter_map(|i| match i {
            I::Forward(unit) => Some(format!("F{}", unit.microbatch + 1)),
            I::BackwardInput(unit) => Some(format!("B{}", unit.microbatch + 1)),
            I::BackwardWeight(unit) => Some(format!("W{}", unit.microbatch + 1)),
            _ => None,
        });
        work.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text(0), "F1 F2 F3 F4 B1 W1 F5 B2 W2 F6 B3 W3 F7 B4 W4 F8 B5 W5 B6 W6 B7 W7 B8 W8");
    assert_eq!(text(3), "F1 B1 F2 B2 F3 B3 F4 B4 W1 F5 B5 W2 F6 B6 W3 F7 B7 W4 F8 B8 W5 W6 W7 W8");
    let costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0 };
    assert_eq!(makespan(&pipeline, costs), 27.0);
    let plain = Pipeline { schedule: Schedule::OneFOneB, ..pipeline };
    assert_eq!(makespan(&plain, costs), 33.0);
    // Weight gradients that are longer than a forward do not fit the gaps: more than the formula's 8 * 4 + 3 * (1 + 1 - 2).
    assert!(makespan(&pipeline, Costs { backward_weight: 2.0, ..costs }) > 32.0);
}

/// Megatron-LM's order on the first of two stages with two chunks.
#[test]
fn interleaving_runs_groups_of_p_microbatches_through_each_chunk() {
    let pipeline = Pipeline { schedule: Schedule::Interleaved, stages: 2, chunks: 2, microbatches: 4 };
    let work = |stage| -> Vec<(bool, usize, usize)> {
        let work = pipeline.instructions(stage).into_iter().filter_map(|i| match i {
            I::Forward(unit) => Some((true, unit.chunk, unit.microbatch)),
            I::Backward(unit) => Some((false, unit.chunk, unit.microbatch)),
            _ => None,
        });
        work.collect()
    };
    let (f, b) = (true, false);
    let first = [
        (f, 0, 0),
        (f, 0, 1),
        (f, 1, 0),
        (f, 1, 1),
        (f, 0, 2),
        (b, 1, 0),
        (f, 0, 3),
        (b, 1, 1),
        (f, 1, 2),
        (b, 0, 0),
        (f, 1, 3),
        (b, 0, 1),
        (b, 1, 2),
        (b, 1, 3),
        (b, 0, 2),
        (b, 0, 3),
    ];
    assert_eq!(work(0), first);
    let last = [
        (f, 0, 0),
        (f, 0, 1),
        (f, 1, 0),
        (b, 1, 0),
        (f, 1, 1),
        (b, 1, 1),
        (f, 0, 2),
        (b, 0, 0),
        (f, 0, 3),
        (b, 0, 1),
        (f, 1, 2),
        (b, 1, 2),
        (f, 1, 3),
        (b, 1, 3),
        (b, 0, 2),
        (b, 0, 3),
    ];
    assert_eq!(work(1), last);
}

#[test]
fn virtual_stages_go_round_the_ranks() {
    let pipeline = Pipeline { schedule: Schedule::Interleaved, stages: 3, chunks: 2, microbatches: 3 };
    let places: Vec<(usize, usize)> =
        std::iter::successors(Some((0, 0)), |&(r, c)| pipeline.next(r, c)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]);
    for (virtual_stage, &(stage, chunk)) in places.iter().enumerate() {
        assert_eq!(pipeline.virtual_stage(stage, chunk), virtual_stage);
        let before = virtual_stage.checked_sub(1).map(|before| places[before]);
        assert_eq!(pipeline.previous(stage, chunk), before);
    }
}

#[test]
fn mistakes_say_value_and_remedy() {
    let error = |schedule, stages, chunks, microbatches| {
        let pipeline = Pipeline { schedule, stages, chunks, microbatches };
        crate::Error::from(pipeline.validate().unwrap_err()).to_string()
    };
    let odd = error(Schedule::Interleaved, 4, 2, 6);
    assert!(
        odd.contains("multiple of parallel.pipeline = 4") && odd.contains("= 6; set train.global_batch"),
        "{odd}"
    );
    assert!(error(Schedule::Interleaved, 4, 2, 5).contains("= 5; set train.global_batch"));
    let alone = error(Schedule::Interleaved, 1, 2, 6);
    assert!(alone.contains("parallel.pipeline = 1; set parallel.pipeline to 2"), "{alone}");
    for schedule in [Schedule::GPipe, Schedule::OneFOneB, Schedule::ZbH1] {
        let chunks = error(schedule, 4, 2, 8);
        assert!(chunks.contains("parallel.virtual_stages = 2"), "{chunks}");
        assert!(chunks.contains(&format!("parallel.schedule = {schedule}; set")), "{chunks}");
    }
    assert!(error(Schedule::OneFOneB, 0, 1, 1).contains("parallel.pipeline is 0"));
    assert!(error(Schedule::OneFOneB, 1, 0, 1).contains("parallel.virtual_stages is 0"));
    assert!(error(Schedule::OneFOneB, 1, 1, 0).contains("microbatches a replica is 0"));
}
