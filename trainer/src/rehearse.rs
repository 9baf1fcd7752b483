//! The trainer on a cluster that is not there: its own ranks, schedules and optimizer, on [`backend_sim`].
//!
//! Replicas do the same at the same time, and so do the ranks of a tensor group but for what the first one does more: of each stage the first tensor rank
//! of the first replica runs and stands for the others, unless all are asked for. A test compares the two.

use std::sync::Arc;

use backend::ops::Scratch;
use backend::{Backend, Class};
use backend_cpu::CpuBackend;
use backend_sim::device::Workspace;
use backend_sim::{
    Cluster, Fault, Operation, Present, RankReport, SimBackend, SimCommunicator, Stack, World,
};

use crate::config::{Mode, RunConfig};
use crate::engine::{Rank, RankConfig, StepPlan};
use crate::layout::{Coordinates, Layout};
use crate::run::rank_config;
use crate::schedule::Schedule;
use crate::timeline::Recorder;
use crate::{Error, Result};

/// The most spans of a rank that are kept.
const SPANS: usize = 40_000;

/// A machine and what runs on it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The machine.
    pub cluster: Cluster,
    /// The software.
    pub stack: Stack,
}

impl Place {
    /// The cluster and the stack of these names, or in these files.
    ///
    /// # Errors
    /// One that is not there.
    pub fn load(cluster: &str, stack: &str) -> Result<Self> {
        let cluster = Cluster::load(cluster).map_err(|error| {
            Error::user(error.to_string())
                .at("--cluster")
                .remedy("give one of those names, or the path of a TOML file")
        })?;
        let stack = Stack::load(stack).map_err(|error| {
            Error::user(error.to_string())
                .at("--stack")
                .remedy("give one of those names, or the path of a TOML file")
        })?;
        Ok(Self { cluster, stack })
    }
}

/// Which ranks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// One of each stage, which stands for the others.
    One,
    /// Those of the first and the last stage, which hold most: for what is not run.
    Ends,
    /// All of the first replica's.
    Replica,
    /// All.
    All,
}

impl Ranks {
    /// Those ranks of a layout.
    pub fn present(self, layout: &Layout) -> Present {
        let of = |tp: usize, dp: usize| {
            let ranks = (0..layout.world_size()).filter(|&rank| {
                let at = layout.coordinates(rank);
                at.tp < tp && at.dp < dp
            });
            Present::of(layout.world_size(), ranks.collect())
        };
        match self {
            Self::One => of(1, 1),
            Self::Ends => {
                let rank = |pp| layout.rank_of(Coordinates { tp: 0, dp: 0, pp });
                let mut ranks = vec![rank(0), rank(layout.pp() - 1)];
                ranks.dedup();
                Present::of(layout.world_size(), ranks)
            }
            Self::Replica => of(layout.tp(), 1),
            Self::All => Present::all(layout.world_size()),
        }
    }
}

/// A step as it would be.
#[derive(Debug)]
pub struct Rehearsed {
    /// The ranks that ran, in rank order, with where they stand.
    pub ranks: Vec<(Coordinates, RankReport)>,
    /// Seconds of a step.
    pub seconds: f64,
    /// What each rank did when, if that was asked for.
    pub recorders: Vec<Recorder>,
}

/// What a rank must know, on that stack. Gradients are reduced in one piece behind the last backward: the thread that would reduce buckets beside it has no
/// simulated time of its own.
pub fn config_on(config: &RunConfig, stack: &Stack) -> RankConfig {
    let mut rank = rank_config(config);
    rank.execution.recompute_outputs = stack.recompute_outputs;
    rank.execution.bucket = 0;
    rank
}

/// How much workspace operations ask for: what the CPU backend's do on one thread.
pub fn workspace() -> Workspace {
    let sizes: Arc<CpuBackend> = CpuBackend::new(1);
    Arc::new(move |scratch: Scratch| sizes.workspace(scratch))
}

/// What a rank of this stack holds beside what ours allocates, in bytes: kept dropout masks, scores and the attention's output, by the difference of the
/// published formula to ours, for every layer and microbatch in flight.
fn beside(config: &RunConfig, stack: &Stack, rank: &Rank<'_, SimBackend>) -> usize {
    if !stack.masks {
        return 0;
    }
    let kept: usize = rank.layers_in_flight();
    (crate::plan::beside_bytes(config) * kept as f64) as usize
}

/// Runs `steps` full steps behind the allocation of everything, and says how long one takes. A rank may hold `limit` bytes.
///
/// # Errors
/// What does not fit, or does not fit together: rank, instruction, tensor.
pub fn rehearse(
    config: &RunConfig,
    place: &Place,
    which: Ranks,
    steps: u64,
    limit: u64,
    record: bool,
) -> std::result::Result<Rehearsed, Fault> {
    let layout = config.layout();
    let rank_config = config_on(config, &place.stack);
    let world = World::new(place.cluster.clone(), place.stack.clone(), which.present(&layout));
    let samples = |_: u64, tokens: &mut [u32]| tokens.fill(0);
    let work = |backend: &SimBackend, communicator: &SimCommunicator| {
        use backend::Communicator;
        let mut rank = Rank::allocate(backend, communicator, rank_config.clone())?;
        let extra = beside(config, &place.stack, &rank);
        let _beside = match extra {
            0 => None,
            bytes => {
                Some(backend.alloc(Class::Activations, backend::DType::U32, [bytes.div_ceil(4)].into())?)
            }
        };
        backend.restart();
        let at = layout.coordinates(communicator.rank());
        let recorder = record.then(|| {
            let label = format!("stage {}, replica {}, tensor {}", at.pp, at.dp, at.tp);
            Recorder::new(communicator.rank(), &label, backend.now(), SPANS)
        });
        rank.record(recorder.as_ref());
        let global_batch = rank_config.global_batch;
        for step in 0..steps {
            let first_sample = step * global_batch as u64;
            rank.train_step(&samples, StepPlan { first_sample, global_batch, lr: 1e-4, stop: false })?;
        }
        drop(rank);
        Ok((at, recorder))
    };
    let ranks = backend_sim::run(&world, limit, &workspace(), work)?;
    let end = ranks.iter().map(|(_, report)| report.seconds).fold(0.0, f64::max);
    let end = end.max(shared(&place.cluster, &ranks, layout.world_size()));
    let (mut reports, mut recorders) = (Vec::new(), Vec::new());
    for ((at, recorder), report) in ranks {
        reports.push((at, report));
        recorders.extend(recorder);
    }
    Ok(Rehearsed { ranks: reports, seconds: end / steps.max(1) as f64, recorders })
}

/// As many microbatches as fill a pipeline twice, where what a rank holds does not grow with more.
fn filled(config: &RunConfig) -> RunConfig {
    let mut short = config.clone();
    if config.parallel.schedule != Schedule::GPipe && config.numerics.mode == Mode::Fast {
        let microbatches = config.microbatches().min(2 * config.parallel.pipeline);
        short.train.global_batch = microbatches * config.train.micro_batch * config.parallel.data;
    }
    short
}

/// What the rank that holds most holds, in bytes, without a step being run.
///
/// # Errors
/// The allocation that `limit` is too small for.
pub fn allocate(
    config: &RunConfig,
    place: &Place,
    which: Ranks,
    limit: u64,
) -> std::result::Result<u64, Fault> {
    let rehearsed = rehearse(&filled(config), place, which, 0, limit, false)?;
    Ok(rehearsed.ranks.iter().map(|(_, report)| report.peak_bytes()).max().unwrap_or(0))
}

/// Every operation of a step, of each rank.
///
/// # Errors
/// Ranks whose instructions do not fit together.
pub fn operations(config: &RunConfig, place: &Place) -> std::result::Result<Vec<Vec<Operation>>, Fault> {
    let layout = config.layout();
    let rank_config = config_on(config, &place.stack);
    let world = World::new(place.cluster.clone(), place.stack.clone(), Ranks::All.present(&layout));
    let samples = |_: u64, tokens: &mut [u32]| tokens.fill(0);
    let work = |backend: &SimBackend, communicator: &SimCommunicator| {
        let mut rank = Rank::allocate(backend, communicator, rank_config.clone())?;
        backend.keep_operations();
        let global_batch = rank_config.global_batch;
        rank.train_step(&samples, StepPlan { first_sample: 0, global_batch, lr: 1e-4, stop: false })?;
        Ok(backend.operations())
    };
    let ranks = backend_sim::run(&world, u64::MAX, &workspace(), work)?;
    Ok(ranks.into_iter().map(|(operations, _)| operations).collect())
}

/// Where ranks share cores: the work of all of them over all cores, in seconds, of which no step is quicker (Graham 1966).
fn shared<T>(cluster: &Cluster, ranks: &[(T, RankReport)], world_size: usize) -> f64 {
    let Some(cores) = cluster.node.cores else { return 0.0 };
    let work = |report: &RankReport| {
        let spent = &report.spent;
        spent.products + spent.streams + spent.optimizer + spent.tensor + spent.data + spent.messages
    };
    let all: f64 = ranks.iter().map(|(_, report)| work(report)).sum();
    let stands_for = world_size as f64 / ranks.len() as f64;
    all * stands_for / cores.min(world_size) as f64
}

/// A fault as the user reads it: what would do is said by the planner.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let memory = |error: &backend::Error| matches!(error, backend::Error::OutOfMemory { .. });
        match &fault {
            Fault::Rank { error, .. } if memory(error) => Self::user(fault.to_string()),
            _ => Self::other(fault.to_string()),
        }
    }
}
