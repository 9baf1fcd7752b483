//! A configuration's prediction: one step of the trainer on the simulated cluster, in the numbers that a planner asks for.

use backend::Class;
use backend_sim::{Fault, RankReport};
use serde::Serialize;

use super::remedy;
use crate::Result;
use crate::config::RunConfig;
use crate::plan::{formulas, sizes};
use crate::rehearse::{Place, Ranks, Rehearsed, rehearse};
use crate::timeline::Recorder;

/// Bytes of a rank by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Weights.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// Moments and master weights.
    pub optimizer: u64,
    /// What forwards keep for backwards.
    pub activations: u64,
    /// Within an operation or between two, and messages on their way.
    pub workspace: u64,
}

impl Bytes {
    fn of(report: &RankReport) -> Self {
        let [parameters, gradients, optimizer, activations, workspace] = report.usage.map(|usage| usage.peak);
        debug_assert_eq!(Class::ALL[0], Class::Parameters);
        Self { parameters, gradients, optimizer, activations, workspace }
    }
}

/// Where the time of a step goes: seconds, the mean over ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Time {
    /// Matrix products.
    pub products: f64,
    /// Other kernels of forward and backward.
    pub other_kernels: f64,
    /// The optimizer's kernels.
    pub optimizer: f64,
    /// Waiting for the host to launch a kernel.
    pub launches: f64,
    /// Collectives within tensor groups.
    pub tensor: f64,
    /// Collectives among replicas, of the tied embedding, of the world.
    pub data: f64,
    /// Messages between stages that nothing hides.
    pub messages: f64,
    /// Waiting for other ranks: the bubble.
    pub waiting: f64,
    /// Messages that travel while the device works; not part of the step.
    pub hidden: f64,
}

/// The rank that holds most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Worst {
    /// World rank.
    pub rank: usize,
    /// Its stage.
    pub stage: usize,
    /// What it holds.
    pub bytes: Bytes,
}

/// What a run would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The machine.
    pub cluster: String,
    /// The software.
    pub stack: String,
    /// Its efficiency: fitted on a published row, or for our own stack unknown and taken as 1.
    pub stack_efficiency: f64,
    /// The row on which it was fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fitted_on: Option<String>,
    /// The preset.
    pub preset: String,
    /// Exact number of parameters.
    pub parameters: u64,
    /// Tensor x pipeline x data.
    pub layout: String,
    /// Devices.
    pub devices: usize,
    /// Nodes.
    pub nodes: usize,
    /// The order of a pipeline's work, and its model chunks a stage.
    pub schedule: String,
    /// `none`, `selective`, `full`.
    pub recompute: model::Recompute,
    /// Whether tensor ranks share out the tokens.
    pub sequence_parallel: bool,
    /// Whether replicas share out the optimizer's state.
    pub sharded_optimizer: bool,
    /// Samples a step.
    pub global_batch: usize,
    /// Samples a microbatch.
    pub micro_batch: usize,
    /// Microbatches of a replica.
    pub microbatches: usize,
    /// Whether every rank holds no more than a device has.
    pub fits: bool,
    /// Bytes of the rank that holds most.
    pub peak_bytes: u64,
    /// Bytes of a device.
    pub memory_bytes: u64,
    /// What is left; negative where it does not fit.
    pub headroom_bytes: i64,
    /// The rank that holds most.
    pub worst: Worst,
    /// Bytes of a rank of each stage.
    pub stages: Vec<Bytes>,
    /// Why it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// What would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what_would: Vec<String>,
    /// Seconds of a full step.
    pub step_seconds: f64,
    /// Tokens a second, all replicas together.
    pub tokens_per_second: f64,
    /// FLOPs of a step that are executed, recomputation included (NAR, equation 3).
    pub hardware_flops: f64,
    /// FLOPs of a step, nothing computed twice.
    pub model_flops: f64,
    /// Hardware FLOPs a second and device, in TFLOP/s.
    pub hardware_tflops_per_gpu: f64,
    /// Model FLOPs a second and device, in TFLOP/s.
    pub model_tflops_per_gpu: f64,
    /// Model FLOPs over the peak.
    pub mfu: f64,
    /// Hardware FLOPs over the peak.
    pub hfu: f64,
    /// Waiting over working, the mean over ranks: `(p - 1)/m` where stages are equal and nothing else waits (NAR, section 2.2).
    pub bubble_fraction: f64,
    /// Where a step goes.
    pub time: Time,
    /// Seconds a step of communication that nothing hides, the mean over ranks.
    pub communication_exposed_seconds: f64,
    /// Seconds a step of communication behind arithmetic.
    pub communication_hidden_seconds: f64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// Days of full steps until then.
    pub days: f64,
    /// Dollars.
    pub dollars: f64,
    /// Bytes of a checkpoint: weights, master weights and moments as f32.
    pub checkpoint_bytes: u64,
    /// Seconds to write one.
    pub checkpoint_seconds: f64,
}

/// A prediction without a timeline.
///
/// # Errors
/// What does not fit together.
pub fn predict(config: &RunConfig, place: &Place) -> Result<Prediction> {
    Ok(predict_with(config, place, Ranks::One, None, false)?.0)
}

/// A prediction, and what each rank did when, where that is asked for.
///
/// # Errors
/// Ranks whose instructions do not fit together.
pub fn predict_with(
    config: &RunConfig,
    place: &Place,
    ranks: Ranks,
    tokens: Option<u64>,
    record: bool,
) -> Result<(Prediction, Vec<Recorder>)> {
    // Without a limit, so that what does not fit is told with all else that is known of it.
    let rehearsed = rehearse(config, place, ranks, 1, u64::MAX, record)?;
    let mut prediction = numbers(config, place, &rehearsed, tokens);
    if !prediction.fits {
        // The allocation that fails, by its rank and tensor.
        let limit = place.cluster.device.memory_bytes;
        prediction.why_not = match rehearse(config, place, ranks, 1, limit, false) {
            Err(Fault::Rank { rank, doing, error }) => Some(format!("rank {rank}, {doing}: {error}")),
            Err(fault) => Some(fault.to_string()),
            Ok(_) => None,
        };
        prediction.what_would = remedy::what_would(config, place);
    }
    Ok((prediction, rehearsed.recorders))
}

/// A rehearsed step in numbers.
fn numbers(config: &RunConfig, place: &Place, rehearsed: &Rehearsed, tokens: Option<u64>) -> Prediction {
    let (parallel, train) = (&config.parallel, &config.train);
    let (layout, cluster) = (config.layout(), &place.cluster);
    let (sizes, batch) = (sizes(config), train.global_batch as f64);
    let (devices, seconds) = (layout.world_size(), rehearsed.seconds);
    let hardware_flops = formulas::hardware_flops(&sizes, batch, parallel.recompute);
    let model_flops = formulas::model_flops(&sizes, batch);
    let per_gpu = |flops: f64| flops / seconds / devices as f64;
    let peak = cluster.device.peak(train.precision.dtype());

    let (at, report) = worst(rehearsed);
    let peak_bytes = report.peak_bytes();
    let memory_bytes = cluster.device.memory_bytes;
    let time = time(rehearsed);
    let tokens = tokens.unwrap_or(train.tokens);
    let days = tokens as f64 / config.tokens_per_step() as f64 * seconds / 86_400.0;
    let checkpoint_bytes = checkpoint_bytes(config);
    Prediction {
        cluster: cluster.name.clone(),
        stack: place.stack.name.clone(),
        stack_efficiency: place.stack.efficiency,
        fitted_on: place.stack.fitted_on.clone(),
        preset: config.preset.clone(),
        parameters: config.model.parameters(),
        layout: layout.to_string(),
        devices,
        nodes: devices.div_ceil(cluster.node.devices),
        schedule: match parallel.virtual_stages {
            1 => parallel.schedule.to_string(),
            chunks => format!("{}:{chunks}", parallel.schedule),
        },
        recompute: parallel.recompute,
        sequence_parallel: parallel.sequence_parallel,
        sharded_optimizer: parallel.sharded_optimizer,
        global_batch: train.global_batch,
        micro_batch: train.micro_batch,
        microbatches: config.microbatches(),
        fits: peak_bytes <= memory_bytes,
        peak_bytes,
        memory_bytes,
        headroom_bytes: memory_bytes as i64 - peak_bytes as i64,
        worst: Worst { rank: report.rank, stage: at.pp, bytes: Bytes::of(report) },
        stages: stages(rehearsed),
        why_not: None,
        what_would: Vec::new(),
        step_seconds: seconds,
        tokens_per_second: config.tokens_per_step() as f64 / seconds,
        hardware_flops,
        model_flops,
        hardware_tflops_per_gpu: per_gpu(hardware_flops) / 1e12,
        model_tflops_per_gpu: per_gpu(model_flops) / 1e12,
        mfu: per_gpu(model_flops) / peak,
        hfu: per_gpu(hardware_flops) / peak,
        bubble_fraction: time.waiting / (seconds - time.waiting),
        communication_exposed_seconds: time.tensor + time.data + time.messages,
        communication_hidden_seconds: time.hidden,
        time,
        tokens,
        days,
        dollars: days * 24.0 * devices as f64 * cluster.dollars_per_device_hour,
        checkpoint_bytes,
        checkpoint_seconds: cluster.checkpoint(devices, checkpoint_bytes as f64),
    }
}

/// The rank that holds most.
fn worst(rehearsed: &Rehearsed) -> &(crate::layout::Coordinates, RankReport) {
    let most =
        rehearsed.ranks.iter().max_by_key(|(at, report)| (report.peak_bytes(), std::cmp::Reverse(at.pp)));
    most.expect("a world has a rank")
}

/// A rank of each stage.
fn stages(rehearsed: &Rehearsed) -> Vec<Bytes> {
    let first = rehearsed.ranks.iter().filter(|(at, _)| at.tp == 0 && at.dp == 0);
    let mut stages: Vec<_> = first.map(|(at, report)| (at.pp, Bytes::of(report))).collect();
    stages.sort_by_key(|(stage, _)| *stage);
    stages.into_iter().map(|(_, bytes)| bytes).collect()
}

/// The mean over ranks.
fn time(rehearsed: &Rehearsed) -> Time {
    let n = rehearsed.ranks.len() as f64;
    let mut time = Time::default();
    for (_, RankReport { seconds, spent, .. }) in &rehearsed.ranks {
        time.products += spent.products / n;
        time.other_kernels += spent.streams / n;
        time.optimizer += spent.optimizer / n;
        time.launches += spent.launches / n;
        time.tensor += spent.tensor / n;
        time.data += spent.data / n;
        time.messages += spent.messages / n;
        // Who is done before the last waits for it.
        time.waiting += (spent.waiting + rehearsed.seconds - seconds) / n;
        time.hidden += spent.hidden / n;
    }
    time
}

/// A checkpoint has each parameter three times as f32: the weight, and Adam's moments.
fn checkpoint_bytes(config: &RunConfig) -> u64 {
    config.model.parameters() * 12
}
