//! `mtnlg bench`: the training step of a configuration on random tokens, in tokens a second, and where the device's time goes; with a pair of files, on its samples.

pub mod ops;
pub mod timed;

use std::path::Path;
use std::time::Duration;

use backend::philox::Stream;
use backend::{Backend, Class, Communicator, KernelTime};
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::split::{Part, Split};
use serde::Serialize;

use crate::config::RunConfig;
use crate::engine::{Prefetch, Rank, RankConfig, Samples, Shelf, StepPlan};
use crate::launch::{Job, World};
use crate::run::rank_config;
use crate::{Error, Result};

/// What a benchmark of the training step measured.
#[derive(Clone, Debug, Serialize)]
pub struct StepBench {
    /// The preset.
    pub preset: String,
    /// The backend and its device.
    pub backend: String,
    /// Tensor x pipeline x data.
    pub layout: String,
    /// Samples a step.
    pub global_batch: usize,
    /// Tokens a second, from the median step.
    pub tokens_per_second: f64,
    /// Seconds of the fastest, the median and the slowest step.
    pub step_seconds: [f64; 3],
    /// Model FLOPs a second over all ranks: `tokens_per_second x FLOPs a token`.
    pub model_gflops: f64,
    /// Tokens for each two seconds of processor time, where the system tells them: what two cores alone would reach, whatever else the machine did.
    pub tokens_per_2_cpu_seconds: Option<f64>,
    /// Peak bytes of the rank that holds most.
    pub peak_bytes: u64,
    /// Milliseconds a step of the first rank's samples: read on a thread beside the step, and waited for.
    pub samples_ms: [f64; 2],
    /// What each kernel took a step, the longest first, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<KernelShare>>,
}

/// A kernel's part of a step, over all ranks of the device.
#[derive(Clone, Debug, Serialize)]
pub struct KernelShare {
    /// Its name and variant.
    pub kernel: String,
    /// Dispatches a step.
    pub dispatches: f64,
    /// Milliseconds a step on the device.
    pub milliseconds: f64,
    /// Of the device's time.
    pub share: f64,
}

fn shares(kernels: &[KernelTime], steps: usize) -> Vec<KernelShare> {
    let total: f64 = kernels.iter().map(|kernel| kernel.time.as_secs_f64()).sum();
    let share = |kernel: &KernelTime| KernelShare {
        kernel: kernel.name.clone(),
        dispatches: kernel.dispatches as f64 / steps as f64,
        milliseconds: 1e3 * kernel.time.as_secs_f64() / steps as f64,
        share: kernel.time.as_secs_f64() / total.max(f64::MIN_POSITIVE),
    };
    kernels.iter().map(share).collect()
}

/// Processor seconds of this process, user and system, where Linux tells them (in hundredths).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is field 3, the two times are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Steps that are run before the clock counts.
const WARM_UP: u64 = 3;

/// The benchmark of the training step: runs it until `seconds` have passed, at least five times.
pub struct Step<'a> {
    /// Model, layout and batch.
    pub config: &'a RunConfig,
    /// How long.
    pub seconds: f64,
    /// Prefix of the .bin/.idx pair whose samples are read, round and round; `None`: random tokens.
    pub data: Option<&'a Path>,
}

/// A pair's samples, from the first again behind the last.
struct Round(BlendedDataset);

impl Round {
    fn open(prefix: &Path, config: &RunConfig) -> Result<Self> {
        Ok(Self(BlendedDataset::open(&BlendConfig {
            sets: vec![BlendSet { prefix: prefix.to_owned(), weight: 1.0 }],
            split: Split::new([1.0, 0.0, 0.0])?,
            part: Part::Train,
            sequence: config.train.seq_len,
            samples: None,
            seed: config.train.seed as u32,
            vocab_size: config.model.vocab,
        })?))
    }
}

impl Samples for Round {
    fn read(&self, index: u64, out: &mut [u32]) -> std::result::Result<(), String> {
        self.0.read(index % self.0.len(), out)
    }
}

impl Job for Step<'_> {
    type Output = StepBench;

    fn run<B: Backend>(self, world: World<B>) -> Result<StepBench> {
        let config = rank_config(self.config);
        let random = random_tokens(&config);
        let pair = self.data.map(|prefix| Round::open(prefix, self.config)).transpose()?;
        let samples: &dyn Samples = pair.as_ref().map_or(&random, |pair| pair);
        step(world, &config, samples, &self.config.preset, self.seconds)
    }
}

/// Random tokens, a sequence a sample.
fn random_tokens(config: &RankConfig) -> impl Fn(u64, &mut [u32]) + Sync + use<> {
    let stream = Stream { seed: config.seed, stream: 1 << 61 };
    let (vocab, span) = (config.model.vocab as u32, config.seq_len as u64 + 1);
    move |index, out| {
        for (i, token) in out.iter_mut().enumerate() {
            *token = stream.word(index * span + i as u64) % vocab;
        }
    }
}

fn step<B: Backend>(
    world: World<B>,
    config: &RankConfig,
    samples: &dyn Samples,
    preset: &str,
    seconds: f64,
) -> Result<StepBench> {
    let info = world.info().ok_or_else(|| Error::other("a world without ranks"))?;
    let one = |backend: &B,
               communicator: &dyn Communicator<B::Buffer>,
               samples: &Prefetch<'_>|
     -> backend::Result<_> {
        let mut rank = Rank::new(backend, communicator, config.clone())?;
        let mut times: Vec<Duration> = Vec::new();
        let (mut cpu, mut before) = (None, samples.times());
        let start = backend.now();
        loop {
            if times.len() == WARM_UP as usize && communicator.rank() == 0 {
                // What the warm-up took does not count.
                backend.profile()?;
                cpu = cpu_seconds();
                before = samples.times();
            }
            let begin = backend.now();
            // The first rank's clock is the one that counts: its wish to stop reaches the others in the step itself.
            let enough =
                begin - start > Duration::from_secs_f64(seconds) && times.len() >= WARM_UP as usize + 5;
            let stop = enough && communicator.rank() == 0;
            let global_batch = config.global_batch;
            let first_sample = rank.steps() * global_batch as u64;
            let next = first_sample + global_batch as u64;
            samples.announce(rank.reads(first_sample, global_batch).start, rank.reads(next, global_batch));
            let stats = rank.train_step(samples, StepPlan { first_sample, global_batch, lr: 1e-4, stop })?;
            backend.sync()?;
            times.push(backend.now() - begin);
            if stats.stop {
                break;
            }
        }
        let peak: u64 = Class::ALL.iter().map(|&class| backend.usage(class).peak).sum();
        let profile = if communicator.rank() == 0 { backend.profile()? } else { None };
        let cpu = cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        let after = samples.times();
        let read = [after.reading - before.reading, after.waiting - before.waiting];
        Ok((times, peak, profile, cpu, read))
    };
    let ranks = world.run(|backend, communicator| -> backend::Result<_> {
        let shelf = Shelf::default();
        std::thread::scope(|scope| {
            let samples = Prefetch::start(scope, &shelf, samples, config.seq_len + 1);
            one(backend, communicator, &samples)
        })
    })?;
    let steps = ranks[0].0.len() - WARM_UP as usize;
    let profile = ranks[0].2.as_ref().map(|kernels| shares(kernels, steps));
    let tokens = (steps * config.global_batch * config.seq_len) as f64;
    let tokens_per_2_cpu_seconds = ranks[0].3.filter(|&cpu| cpu > 0.0).map(|cpu| 2.0 * tokens / cpu);
    let mut times: Vec<f64> = ranks[0].0[WARM_UP as usize..].iter().map(Duration::as_secs_f64).collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let tokens_per_second = (config.global_batch * config.seq_len) as f64 / median;
    Ok(StepBench {
        preset: preset.to_owned(),
        backend: format!("{} ({})", info.backend, info.device),
        layout: config.layout.to_string(),
        global_batch: config.global_batch,
        tokens_per_second,
        step_seconds: [times[0], median, times[times.len() - 1]],
        model_gflops: tokens_per_second * config.model.flops_per_token() / 1e9,
        tokens_per_2_cpu_seconds,
        peak_bytes: ranks.iter().map(|(_, peak, ..)| *peak).max().unwrap_or(0),
        samples_ms: ranks[0].4.map(|time| 1e3 * time.as_secs_f64() / steps as f64),
        profile,
    })
}

impl std::fmt::Display for StepBench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [fastest, median, slowest] = self.step_seconds.map(|seconds| 1e3 * seconds);
        writeln!(
            f,
            "{} on {}, {}, {} samples a step",
            self.preset, self.backend, self.layout, self.global_batch
        )?;
        writeln!(f, "  {:.0} tokens/s, {:.1} model GFLOP/s", self.tokens_per_second, self.model_gflops)?;
        if let Some(tokens) = self.tokens_per_2_cpu_seconds {
            let gflops = self.model_gflops * tokens / self.tokens_per_second;
            writeln!(
                f,
                "  {tokens:.0} tokens and {gflops:.1} model GFLOPs for two seconds of processor time"
            )?;
        }
        writeln!(f, "  step: median {median:.1} ms, fastest {fastest:.1}, slowest {slowest:.1}")?;
        let [read, waited] = self.samples_ms;
        writeln!(f, "  samples: read in {read:.3} ms a step beside it, waited for {waited:.3} ms")?;
        write!(f, "  memory: {:.1} MiB on the fullest rank", self.peak_bytes as f64 / (1 << 20) as f64)?;
        let Some(kernels) = &self.profile else { return Ok(()) };
        let total = |of: fn(&KernelShare) -> f64| kernels.iter().map(of).sum::<f64>();
        write!(f, "\n  {:44} {:>10} {:>10} {:>7}", "kernel, a step", "dispatches", "ms", "share")?;
        for KernelShare { kernel, dispatches, milliseconds, share } in kernels {
            write!(f, "\n  {kernel:44} {dispatches:>10.1} {milliseconds:>10.2} {:>6.1}%", 100.0 * share)?;
        }
        let products =
            kernels.iter().filter(|k| ["matmul/", "attention/"].iter().any(|p| k.kernel.starts_with(p)));
        let products: f64 = products.map(|kernel| kernel.share).sum();
        let (dispatches, milliseconds) = (total(|k| k.dispatches), total(|k| k.milliseconds));
        write!(f, "\n  {:44} {dispatches:>10.1} {milliseconds:>10.2}", "all")?;
        write!(
            f,
            "\n  in matrix products and attention: {:.1}% (measured kernel by kernel, which slows the step)",
            100.0 * products
        )
    }
}
