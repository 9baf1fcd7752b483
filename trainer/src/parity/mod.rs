//! `mtnlg parity`: whether a parallel run is the serial run.
//!
//! The same few steps are trained in each of a list of [`Variant`]s: cuts of the world, schedules, recomputation, sequence parallelism, sharded optimizer
//! state, an interruption that goes on in another layout. What comes of each is a loss, a gradient norm and a [digest] of every parameter with its moments.
//! Under `invariant` numerics all digests are equal, bit for bit; under `fast` numerics the loss and the norm agree to rounding.
//!
//! The data are random tokens, a pure function of the sample's index.

mod args;
pub mod digest;
mod processes;
mod report;
mod variants;

use std::collections::BTreeMap;

use backend::Backend;
use backend::philox::Stream;
use model::{Shard, Slice};

use crate::Result;
use crate::config::{BackendChoice, RunConfig};
use crate::device::Device;
use crate::engine::{Rank, RankConfig, Samples, StepPlan, TensorState};
use crate::launch::{Job, Opened, World};
use crate::run::rank_config;

pub use args::{ParityArgs, default_config};
pub use processes::RankArgs;
pub use report::{Outcome, ParityReport};
pub use variants::{Launcher, Variant, all, parse};

/// A model's state on the host, whole: by name, values and both moments.
pub type HostState = BTreeMap<String, [Vec<f32>; 3]>;

/// How a stretch of training ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Loss of the last step.
    pub loss: f32,
    /// Gradient norm of the last step.
    pub grad_norm: f32,
    /// Everything that was learnt.
    pub state: HostState,
    /// Updates of the weights.
    pub updates: u64,
    /// f16's loss scale, and what it has seen.
    pub loss_scale: Option<(f32, u32, u32)>,
}

/// Trains steps `steps` of a run on all its ranks, from `start` or from the seed.
///
/// # Errors
/// The first rank's that fails.
pub fn train<B: Backend>(
    world: World<B>,
    config: &RankConfig,
    samples: &dyn Samples,
    lr: f32,
    steps: std::ops::Range<u64>,
    start: Option<&Trained>,
) -> backend::Result<Trained> {
    let ranks = world.run(|backend, communicator| -> backend::Result<_> {
        let mut rank = Rank::new(backend, communicator, config.clone())?;
        if let Some(Trained { state, updates, .. }) = start {
            rank.import::<backend::Error>(*updates, |name, slice| {
                Ok(state[name].each_ref().map(|whole| cut(whole, slice)))
            })?;
        }
        if let (Some(scaler), Some(state)) = (rank.scaler(), start.and_then(|start| start.loss_scale)) {
            scaler.restore(state);
        }
        let mut last = None;
        for step in steps.clone() {
            let global_batch = config.global_batch;
            let (first_sample, lr) = (step * global_batch as u64, lr_of(lr, step));
            let plan = StepPlan { first_sample, global_batch, lr, stop: false };
            last = Some(rank.train_step(samples, plan)?);
        }
        let progress = (rank.steps(), rank.scaler().map(|scaler| scaler.state()));
        Ok((last, progress, rank.export()?))
    })?;
    let (loss, grad_norm) = match ranks[0].0 {
        Some(stats) => (stats.loss, stats.grad_norm),
        None => (f32::NAN, f32::NAN),
    };
    let (updates, loss_scale) = ranks[0].1;
    let state = assemble(config, ranks.into_iter().flat_map(|(_, _, states)| states));
    Ok(Trained { loss, grad_norm, state, updates, loss_scale })
}

/// A short warm-up to `peak`: the rate of a step is a function of its number.
fn lr_of(peak: f32, step: u64) -> f32 {
    peak * (step + 1).min(4) as f32 / 4.0
}

/// The elements of a slice of a whole tensor.
fn cut(whole: &[f32], slice: &Slice) -> Vec<f32> {
    let run = |(first, len): (u64, usize)| &whole[first as usize..first as usize + len];
    slice.runs().into_iter().flat_map(|r| run(r).iter().copied()).collect()
}

/// Whole tensors from the parts that ranks hold. What nobody holds is NaN.
fn assemble(config: &RankConfig, parts: impl Iterator<Item = TensorState>) -> HostState {
    let whole = |n: usize| [vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; n]];
    let parameters = Shard::whole(&config.model).parameters(&config.model);
    let mut state: HostState =
        parameters.into_iter().map(|p| (p.name.clone(), whole(p.slice.len()))).collect();
    for part in parts {
        let Some(tensors) = state.get_mut(&part.name) else { continue };
        for (to, from) in tensors.iter_mut().zip([&part.value, &part.m, &part.v]) {
            let mut at = 0;
            for (first, len) in part.slice.runs() {
                to[first as usize..first as usize + len].copy_from_slice(&from[at..at + len]);
                at += len;
            }
        }
    }
    state
}

/// Random tokens.
pub fn random_samples(seed: u64, vocab: usize, seq_len: usize) -> impl Samples {
    let (stream, span) = (Stream { seed, stream: 1 << 61 }, seq_len as u64 + 1);
    move |index: u64, out: &mut [u32]| {
        for (i, token) in out.iter_mut().enumerate() {
            *token = stream.word(index * span + i as u64) % vocab as u32;
        }
    }
}

/// Trains one stretch.
struct Stretch<'a> {
    config: &'a RankConfig,
    samples: &'a dyn Samples,
    lr: f32,
    steps: std::ops::Range<u64>,
    start: Option<&'a Trained>,
}

impl Job for Stretch<'_> {
    type Output = Trained;

    fn run<B: Backend>(self, world: World<B>) -> Result<Trained> {
        Ok(train(world, self.config, self.samples, self.lr, self.steps, self.start)?)
    }
}

/// Trains `steps` steps of the configuration in each variant; `told` hears of each as it is done.
///
/// # Errors
/// A variant that the model or the batch does not allow; those of the ranks.
pub fn run(
    config: &RunConfig,
    device: &Device,
    variants: &[Variant],
    steps: u64,
    mut told: impl FnMut(&Outcome),
) -> Result<ParityReport> {
    let configs = variants.iter().map(|variant| variant.apply(config)).collect::<Result<Vec<_>>>()?;
    let samples = random_samples(config.train.seed, config.model.vocab, config.train.seq_len);
    let mut outcomes = Vec::with_capacity(variants.len());
    let opened = Opened::new(device)?;
    for (variant, config) in variants.iter().zip(&configs) {
        let stretch = |launcher, config: &RunConfig, steps, start: Option<&Trained>| {
            if launcher != Launcher::Threads {
                let backend = match device {
                    Device::Cpu => BackendChoice::Cpu,
                    Device::Wgpu(_) => BackendChoice::Wgpu,
                    #[cfg(any(feature = "cuda", feature = "cuda-13"))]
                    Device::Cuda(_) => BackendChoice::Cuda,
                };
                return processes::train(launcher, config, backend, steps, start);
            }
            let (lr, rank_config) = (config.train.lr as f32, rank_config(config));
            let job = Stretch { config: &rank_config, samples: &samples, lr, steps, start };
            opened.launch(config.layout().world_size(), job)
        };
        let trained = match &variant.interrupted {
            None => stretch(variant.launcher, config, 0..steps, None)?,
            Some(before) => {
                let first = stretch(before.launcher, &before.apply(config)?, 0..steps / 2, None)?;
                stretch(variant.launcher, config, steps / 2..steps, Some(&first))?
            }
        };
        let outcome = Outcome::new(variant, &trained);
        told(&outcome);
        outcomes.push(outcome);
    }
    Ok(ParityReport::new(config, steps, outcomes))
}
