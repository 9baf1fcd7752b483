//! The trainer on a simulated cluster: the 530B run whole, ranks that stand for others, planted faults, and the simulation beside the run that it simulates.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use backend::{Communicator, DType, Group, Lane, ReduceOp, Result, View};
use backend_sim::{Fault, Line, Present, SimBackend, SimCommunicator, World};
use trainer::config::{Layers, RunConfig, defaults};
use trainer::engine::{Rank, StepPlan};
use trainer::plan::{formulas, sizes};
use trainer::planner::predict::{predict, predict_with};
use trainer::rehearse::{Place, Ranks, config_on, operations, rehearse, workspace};
use trainer::run::rank_config;
use trainer::timeline::{Category, Recorder};

fn resolve(preset: &str, sets: &str) -> RunConfig {
    let layers = Layers::default().preset(preset);
    let layers = layers.set("train.batch_ramp={start=0,increment=0,samples=0}").unwrap();
    RunConfig::resolve(&sets.split_whitespace().fold(layers, |layers, set| layers.set(set).unwrap())).unwrap()
}

fn place(stack: &str) -> Place {
    Place::load("selene", stack).unwrap()
}

const SMALL: &str = "model.layers=4 model.hidden=64 model.heads=4 model.dropout=0.1 train.global_batch=16 train.micro_batch=1";

/// What other ranks do more than the first one, which stands for them: their squares are summed in one range more a model chunk, because they leave out what the
/// tensor group repeats; and a share of the optimizer's state may have a boundary where the first one has none. Everything else that differs the first one does
/// alone.
fn one_sum_more(config: &RunConfig, place: &Place) -> f64 {
    let kernel = place.cluster.device.kernel_seconds + place.stack.launch_seconds;
    2.0 * (1 + config.parallel.virtual_stages) as f64 * kernel / place.stack.efficiency
}

/// A rank that stands for its tensor group and for all replicas is as late and holds as much as if all of them ran: to the bit but for a sum of a few numbers.
#[test]
fn those_who_stand_for_others_do_as_all_do() {
    for sets in [
        "",
        "parallel.recompute=full parallel.schedule=gpipe",
        "parallel.schedule=interleaved parallel.sequence_parallel=true parallel.recompute=selective",
        "parallel.pipeline=4 parallel.data=1 parallel.schedule=zb-h1",
        "parallel.sharded_optimizer=true parallel.tensor=4 train.precision=bf16",
        "parallel.pipeline=1 parallel.data=4 numerics.mode=invariant numerics.chunks=4",
        "parallel.scatter_gather=false train.precision=f16 parallel.layers=[3,1]",
    ] {
        let config = resolve("laptop", &format!("{SMALL} {sets}"));
        for stack in ["mtnlg", "mt-nlg"] {
            let place = place(stack);
            let run = |ranks| rehearse(&config, &place, ranks, 2, u64::MAX, false).unwrap();
            let (one, replica, all) = (run(Ranks::One), run(Ranks::Replica), run(Ranks::All));
            let (cut, shared_out) = (config.parallel.tensor > 1, config.parallel.sharded_optimizer);
            for (run, differs) in [(&one, cut || shared_out), (&replica, shared_out)] {
                let more = all.seconds - run.seconds;
                let bound = if differs { one_sum_more(&config, &place) } else { 0.0 };
                assert!((0.0..=bound).contains(&more), "{sets} {stack}: {more} of {bound}");
            }
            assert_eq!(all.ranks.len(), config.layout().world_size());
            for (at, report) in &all.ranks {
                let (_, stands_for) = one.ranks.iter().find(|(of, _)| of.pp == at.pp).unwrap();
                assert_eq!(report.usage, stands_for.usage, "{sets} {stack}, {at:?}");
            }
        }
    }
}

#[test]
fn the_same_every_time() {
    let config = resolve("laptop", SMALL);
    let run = || rehearse(&config, &place("mtnlg"), Ranks::All, 1, u64::MAX, false).unwrap().ranks;
    assert_eq!(run(), run());
}

/// MT-NLG's own configuration, all 280 ranks of a replica, a whole step of 240 microbatches.
#[test]
fn the_production_run_whole() {
    let config = resolve("mt-nlg-530b", "");
    assert_eq!((config.layout().world_size(), config.microbatches()), (2240, 240));
    let limit = 80_000_000_000;
    let begin = Instant::now();
    // A collective that is not matched, a message that nobody receives, or a byte past the limit would be a fault.
    let whole = rehearse(&config, &place("mt-nlg"), Ranks::Replica, 1, limit, false).unwrap();
    let took = begin.elapsed();
    assert_eq!(whole.ranks.len(), 280);
    assert!(whole.ranks.iter().all(|(_, report)| report.peak_bytes() < limit));
    assert!(took.as_secs() < 120, "{took:?}");
    // What ran is what the published formula says is executed (NAR, equation 3), which leaves out what is a hundredth.
    let executed: f64 = whole.ranks.iter().map(|(_, report)| report.spent.flops).sum::<f64>() * 8.0;
    let published = formulas::hardware_flops(&sizes(&config), 1920.0, config.parallel.recompute);
    assert!((executed / published - 1.0).abs() < 0.01, "{executed:e} {published:e}");
    // The ranks that stand for the others say the same.
    let one = rehearse(&config, &place("mt-nlg"), Ranks::One, 1, limit, false).unwrap();
    let more = whole.seconds - one.seconds;
    assert!((0.0..=one_sum_more(&config, &place("mt-nlg"))).contains(&more), "{more}");
}

/// Every element of every parameter is on one rank of a replica, or on each where it is repeated.
#[test]
fn every_parameter_of_the_production_run_is_covered_once() {
    let config = rank_config(&resolve("mt-nlg-530b", ""));
    let whole = model::Shard::whole(&config.model).parameters(&config.model);
    let mut cut: BTreeMap<String, Vec<Vec<usize>>> = BTreeMap::new();
    let layout = config.layout;
    for rank in (0..layout.world_size()).filter(|&rank| layout.coordinates(rank).dp == 0) {
        let shard = config.shard(layout.coordinates(rank), 0).unwrap();
        for parameter in shard.parameters(&config.model) {
            let counted =
                (parameter.tensor_parallel || shard.tensor_rank == 0) && (!parameter.tied || shard.first);
            if counted {
                let slice = &parameter.slice;
                cut.entry(parameter.name.clone())
                    .or_default()
                    .push([&slice.start[..], &slice.shape[..]].concat());
            }
        }
    }
    assert_eq!(cut.len(), whole.len());
    for parameter in &whole {
        let slices = cut.get_mut(&parameter.name).unwrap();
        slices.sort();
        let axes = parameter.slice.shape.len();
        let elements: usize = slices.iter().map(|slice| slice[axes..].iter().product::<usize>()).sum();
        assert_eq!(elements, parameter.slice.len(), "{}", parameter.name);
        slices.dedup();
        let starts = slices.iter().map(|slice| &slice[..axes]).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(starts.len(), if parameter.tensor_parallel { 8 } else { 1 }, "{}", parameter.name);
    }
}

/// With equal stages, free communication and nothing but the schedule to wait for, the bubble is the papers'.
#[test]
fn the_bubble_is_the_papers() {
    let mut free = place("mtnlg");
    for bandwidth in [
        &mut free.cluster.node.ring_bandwidth,
        &mut free.cluster.node.message_bandwidth,
        &mut free.cluster.network.ring_bandwidth,
        &mut free.cluster.network.message_bandwidth,
    ] {
        *bandwidth = 1e30;
    }
    for seconds in [
        &mut free.cluster.node.begin_seconds,
        &mut free.cluster.node.step_seconds,
        &mut free.cluster.network.step_seconds,
        &mut free.stack.launch_seconds,
    ] {
        *seconds = 0.0;
    }
    for (schedule, m, v) in [("1f1b", 32, 1), ("gpipe", 32, 1), ("interleaved", 32, 2)] {
        let sets = format!(
            "model.layers=64 model.vocab=512 data.tokenizer=bpe:512 model.hidden=1024 model.heads=16 model.seq_len=1024 parallel.tensor=1 parallel.pipeline=8 \
             parallel.data=1 train.micro_batch=1 train.global_batch={m} parallel.schedule={schedule} train.precision=bf16"
        );
        let config = resolve("laptop", &sets);
        let bubble = predict(&config, &free).unwrap().bubble_fraction;
        let paper = formulas::bubble(config.parallel.schedule, 8, m, v);
        assert!((bubble / paper - 1.0).abs() < 0.15, "{schedule}: {bubble} {paper}");
    }
}

/// What a rank does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Plant {
    /// It never sends its third message.
    Forgets,
    /// It sends its third message twice, the second time as the last thing that it does.
    Repeats,
    /// It sends half of its third message.
    Halves,
    /// It leaves out a collective of its tensor group.
    Skips,
}

/// A communicator with a planted fault.
struct Faulty<'a> {
    inner: &'a SimCommunicator,
    plant: Option<Plant>,
    sends: AtomicUsize,
    sums: AtomicUsize,
}

impl Communicator<Line> for Faulty<'_> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn world_size(&self) -> usize {
        self.inner.world_size()
    }
    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, Line>) -> Result<()> {
        let third = self.sums.fetch_add(1, Ordering::Relaxed) == 2;
        match self.plant {
            Some(Plant::Skips) if third => Ok(()),
            _ => self.inner.all_reduce(group, op, data),
        }
    }
    fn reduce_scatter(&self, group: &Group, src: View<'_, Line>, dst: View<'_, Line>) -> Result<()> {
        self.inner.reduce_scatter(group, src, dst)
    }
    fn all_gather(&self, group: &Group, src: View<'_, Line>, dst: View<'_, Line>) -> Result<()> {
        self.inner.all_gather(group, src, dst)
    }
    fn broadcast(&self, group: &Group, root: usize, data: View<'_, Line>) -> Result<()> {
        self.inner.broadcast(group, root, data)
    }
    fn send(&self, to: usize, lane: Lane, data: View<'_, Line>) -> Result<()> {
        let third = self.sends.fetch_add(1, Ordering::Relaxed) == 2;
        match self.plant.filter(|_| third) {
            Some(Plant::Forgets) => Ok(()),
            Some(Plant::Repeats) => {
                self.inner.send(to, lane, data)?;
                self.inner.send(to, lane, data)
            }
            Some(Plant::Halves) => {
                let flat = data.reshape([data.len()])?;
                self.inner.send(to, lane, flat.rows(0, data.len() / 2)?)
            }
            _ => self.inner.send(to, lane, data),
        }
    }
    fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        self.inner.reserve(to, messages, dtype, len)
    }
    fn recv(&self, from: usize, lane: Lane, data: View<'_, Line>) -> Result<()> {
        self.inner.recv(from, lane, data)
    }
    fn barrier(&self, group: &Group) -> Result<()> {
        self.inner.barrier(group)
    }
    fn fail(&self, cause: &str) {
        self.inner.fail(cause);
    }
}

/// A step in which rank `culprit` does that.
fn planted(plant: Plant, culprit: usize) -> String {
    let config = resolve("laptop", &format!("{SMALL} parallel.tensor=2 parallel.pipeline=4 parallel.data=1"));
    let place = place("mtnlg");
    let world = World::new(place.cluster.clone(), place.stack.clone(), Present::all(8));
    let rank_config = config_on(&config, &place.stack);
    let samples = |_: u64, tokens: &mut [u32]| tokens.fill(0);
    let work = |backend: &SimBackend, inner: &SimCommunicator| {
        let plant = (inner.rank() == culprit).then_some(plant);
        let faulty = Faulty { inner, plant, sends: AtomicUsize::new(0), sums: AtomicUsize::new(0) };
        let mut rank = Rank::allocate(backend, &faulty, rank_config.clone())?;
        let plan =
            StepPlan { first_sample: 0, global_batch: rank_config.global_batch, lr: 1e-4, stop: false };
        rank.train_step(&samples, plan).map(drop)
    };
    backend_sim::run(&world, u64::MAX, &workspace(), work).unwrap_err().to_string()
}

#[test]
fn planted_faults_are_found_and_named() {
    // Rank 2 is tensor rank 0 of stage 1: it sends to stage 2, rank 4.
    let deadlock = planted(Plant::Forgets, 2);
    assert!(deadlock.starts_with("deadlock: "), "{deadlock}");
    assert!(deadlock.contains("rank 4, in Recv") && deadlock.contains("recv from rank 2"), "{deadlock}");
    let unmatched = planted(Plant::Repeats, 2);
    assert!(unmatched.contains("rank 2 to rank 4") && unmatched.contains("never received"), "{unmatched}");
    let shape = planted(Plant::Halves, 2);
    assert!(shape.contains("rank 4, in RecvForward") && shape.contains("room for f32"), "{shape}");
    let skipped = planted(Plant::Skips, 3);
    assert!(skipped.contains("rank 2") || skipped.contains("rank 3"), "{skipped}");
    assert!(skipped.contains("all_reduce"), "{skipped}");
}

#[test]
fn memory_past_the_limit_is_named_and_remedied() {
    let config = resolve("mt-nlg-530b", "parallel.recompute=none parallel.pipeline=21 parallel.data=10");
    let (prediction, _) = predict_with(&config, &place("mtnlg"), Ranks::One, None, false).unwrap();
    assert!(!prediction.fits && prediction.headroom_bytes < 0);
    let why = prediction.why_not.unwrap();
    assert!(why.contains("rank ") && why.contains("in the allocation of activations bf16["), "{why}");
    assert!(!prediction.what_would.is_empty());
    assert!(
        prediction.what_would.iter().any(|what| what.contains("--recompute full")),
        "{:?}",
        prediction.what_would
    );
}

/// What a rank did, in order: its instructions; its messages and collectives.
type Order = [Vec<(Category, &'static str, Option<usize>, Option<u64>)>; 2];

fn order(recorder: &Recorder) -> Order {
    let mut spans = recorder.spans();
    // A simulated send takes no time of its rank: what ends first was first.
    spans.sort_by(|a, b| a.end.total_cmp(&b.end));
    let of = |said: bool| {
        let says = |category| matches!(category, Category::Send | Category::Receive | Category::Collective);
        let kept = spans.iter().filter(|span| says(span.category) == said);
        kept.map(|span| (span.category, span.name, span.args.microbatch, span.args.bytes)).collect()
    };
    [of(false), of(true)]
}

#[test]
fn the_order_is_the_executed_one() {
    use trainer::ledger::Recorded;
    for sets in
        ["", "parallel.schedule=interleaved parallel.sequence_parallel=true", "parallel.schedule=zb-h1"]
    {
        let config = resolve("laptop", &format!("{SMALL} model.seq_len=32 {sets}"));
        let rank_config = rank_config(&config);
        let samples = |_: u64, tokens: &mut [u32]| tokens.fill(1);
        let plan =
            StepPlan { first_sample: 0, global_batch: rank_config.global_batch, lr: 1e-4, stop: false };
        let backends: Vec<_> = (0..8).map(|_| backend_cpu::CpuBackend::new(1)).collect();
        let ranks = backend::local::connect(&backends, std::time::Duration::from_secs(60));
        let executed: Vec<_> = backend::local::run(ranks, |communicator| -> Result<_> {
            let recorder = Recorder::new(communicator.rank(), "", Instant::now(), 100_000);
            let recorded = Recorded::new(communicator, Some(&recorder));
            let mut rank = Rank::allocate(communicator.backend(), &recorded, rank_config.clone())?;
            rank.record(Some(&recorder));
            rank.train_step(&samples, plan)?;
            drop(rank);
            Ok(order(&recorder))
        })
        .unwrap();
        let place = place("mtnlg");
        let world = World::new(place.cluster.clone(), place.stack.clone(), Present::all(8));
        let work = |backend: &SimBackend, communicator: &SimCommunicator| {
            let recorder = Recorder::new(communicator.rank(), "", backend::Backend::now(backend), 100_000);
            let recorded = Recorded::new(communicator, Some(&recorder));
            let mut rank = Rank::allocate(backend, &recorded, rank_config.clone())?;
            rank.record(Some(&recorder));
            rank.train_step(&samples, plan)?;
            drop(rank);
            Ok(order(&recorder))
        };
        let simulated = backend_sim::run(&world, u64::MAX, &workspace(), work).unwrap();
        for (rank, ((simulated, _), executed)) in simulated.into_iter().zip(executed).enumerate() {
            assert!(executed[0].len() > 15 && executed[1].len() > 50);
            assert_eq!(simulated, executed, "{sets}, rank {rank}");
        }
    }
}

/// Both backends are asked for the same operations: what a calibration rests on, and what makes a simulation of this trainer one of this trainer.
#[test]
fn every_operation_has_a_cost() {
    let config = resolve("laptop", SMALL);
    let place = place("mtnlg");
    for rank in operations(&config, &place).unwrap() {
        assert!(rank.len() > 300);
        assert!(rank.iter().all(|operation| operation.bytes > 0.0), "{rank:?}");
        assert!(rank.iter().any(|operation| operation.op == "adamw"));
    }
}

#[test]
fn a_fault_without_memory_is_no_users_mistake() {
    let fault = Fault::Deadlock(backend::Error::Deadlock { waiting: vec!["rank 0".into()] });
    assert_eq!(trainer::Error::from(fault).exit_code(), 1);
    let memory = backend::Error::OutOfMemory {
        class: backend::Class::Parameters,
        asked: 2,
        in_use: 1,
        remedy: "more",
    };
    let fault = Fault::Rank { rank: 3, doing: "in the allocation".into(), error: Box::new(memory) };
    let error = trainer::Error::from(fault);
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("rank 3"), "{error}");
    assert_eq!(defaults::preset("laptop").unwrap().run.cluster, "selene");
}
