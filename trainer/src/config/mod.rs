//! The configuration of a run: every choice, resolved.
//!
//! A [`RunConfig`] is complete: it serialises to the `config.toml` of the run directory with every key present, and loading that gives the same
//! values again. It comes about in layers, each over the one before:
//!
//! 1. the preset's values ([`defaults`]);
//! 2. a TOML file (`--config`);
//! 3. `--set section.key=value` and the flags that stand for one.
//!
//! Unknown keys are refused wherever they come from. Paths are relative to the working directory.
//!
//! ```
//! use trainer::config::{Layers, RunConfig};
//! let layers = Layers::default().set("train.lr=1e-3").unwrap();
//! let config = RunConfig::resolve(&layers).unwrap();
//! assert_eq!((config.preset.as_str(), config.train.lr), ("laptop", 1e-3));
//! ```

pub mod defaults;
mod execution;
mod file;
mod lengths;
mod resolve;
mod unknown;
mod validate;
mod values;

use std::path::{Path, PathBuf};

use eval::shots::Shots;
use model::{GptConfig, Recompute};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::batch::{Batch, BatchRamp};
use crate::layout::Layout;
use crate::lr::LearningRate;
use backend_wgpu::Kernels;

use crate::options::{Execution, LossScale, Numerics, Precision};
use crate::schedule::Schedule;

pub use resolve::Layers;
pub use values::{BackendChoice, DataSource, Mode, Split, Tokenizer, ValueError};

/// A whole run, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The preset that it started from.
    pub preset: String,
    /// The model.
    pub model: GptConfig,
    /// Layout, schedule, and what a rank keeps.
    pub parallel: Parallel,
    /// How sums are taken.
    pub numerics: NumericsConfig,
    /// Batches, optimizer, and what happens every so often.
    pub train: Train,
    /// The dynamic loss scale of f16.
    pub loss_scale: LossScale,
    /// What the model is asked while it is trained.
    pub evaluation: Evaluation,
    /// What it is trained on.
    pub data: Data,
    /// Where it runs.
    pub run: Run,
}

/// `[parallel]`: the cut of the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    /// Tensor-parallel ranks.
    pub tensor: usize,
    /// Pipeline stages.
    pub pipeline: usize,
    /// Data-parallel replicas.
    pub data: usize,
    /// In which order a pipeline runs its microbatches.
    pub schedule: Schedule,
    /// Model chunks a stage; 1 unless the schedule is interleaved.
    pub virtual_stages: usize,
    /// Layers of each virtual stage, first to last; the first, which has the embedding, and the last, which has the logits, may have 0. None shares them equally.
    pub layers: Vec<usize>,
    /// Whether the tensor group shares out the tokens between its matrix products.
    pub sequence_parallel: bool,
    /// Whether a stage's tensor ranks each send their part of the output.
    pub scatter_gather: bool,
    /// What the backward computes again instead of keeping it.
    pub recompute: Recompute,
    /// Whether each replica holds its share of the optimizer's state only (ZeRO-1).
    pub sharded_optimizer: bool,
    /// Elements of a gradient bucket; 0 reduces all gradients at once.
    pub bucket: usize,
}

/// `[numerics]`: how the sums are taken that a layout can split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumericsConfig {
    /// The quickest way, or the same bits in every layout.
    pub mode: Mode,
    /// Parts of an axis that tensor parallelism splits, where the mode is invariant: a power of two that `parallel.tensor` divides.
    pub chunks: usize,
    /// Whether kernels are chosen by rule and never by measurement, for the same bits on every run and whatever state the machine is in.
    pub deterministic: bool,
}

/// `[train]`: batches, AdamW (Loshchilov & Hutter 2019) and what happens every so often.
///
/// Lengths are tokens; each has a key in steps beside it, which stands for as many tokens as that many steps take. In a resolved configuration both
/// are there, and the one in steps is the fewest that reach the tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Tokens of the whole run: it ends with the step that reaches them.
    pub tokens: u64,
    /// Tokens a sample; at most `model.seq_len`.
    pub seq_len: usize,
    /// Samples that a replica runs at once.
    pub micro_batch: usize,
    /// Samples a step, over all replicas: a multiple of `micro_batch x parallel.data`.
    pub global_batch: usize,
    /// The smaller batches before that.
    pub batch_ramp: BatchRamp,
    /// The type of weights and activations.
    pub precision: Precision,
    /// Peak learning rate.
    pub lr: f64,
    /// Where the cosine ends, as a fraction of `lr`.
    pub min_lr_ratio: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Tokens of linear warm-up.
    pub warmup_tokens: u64,
    /// The step at which the cosine ends.
    pub decay_steps: u64,
    /// The tokens at which the cosine ends.
    pub decay_tokens: u64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub eps: f64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f64,
    /// Seed of initial weights, dropout and sample order.
    pub seed: u64,
    /// Validate every so many steps; 0 for the end alone.
    pub valid_every: u64,
    /// Global batches a validation.
    pub valid_batches: u64,
    /// Save every so many steps; 0 for the end alone.
    pub checkpoint_every: u64,
    /// Checkpoints kept, the newest ones.
    pub keep_checkpoints: usize,
}

/// `[evaluation]`: tasks of `mtnlg eval` that the model is asked while it is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The tasks by name, or `all`; none for no evaluation.
    pub tasks: Vec<String>,
    /// Ask every so many steps; 0 for the end alone.
    pub every: u64,
    /// Examples before each question: numbers, or `few`.
    pub shots: Vec<Shots>,
    /// The first so many documents of each task; 0 for all.
    pub limit: usize,
    /// Where the tasks' files are: folders, `TASK=FILE` or `TASK.train=FILE`.
    pub data: Vec<String>,
}

/// `[data]`: the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The sets to blend; none for the default corpus.
    pub sources: Vec<DataSource>,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// Shares for training, validation and test.
    pub split: Split,
}

/// `[run]`: where it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The run directory.
    pub dir: PathBuf,
    /// The backend.
    pub backend: BackendChoice,
    /// The cluster that backend `sim` simulates, by name or TOML file.
    pub cluster: String,
    /// The software that it simulates there, by name or TOML file.
    pub stack: String,
}

impl RunConfig {
    /// Reads a file, over the preset that it names (`laptop` if none): a resolved `config.toml` comes back as it was saved.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn load(path: &Path) -> Result<Self> {
        Self::resolve(&Layers::default().file(path))
    }

    /// The layout. Valid, as every resolved configuration is.
    pub fn layout(&self) -> Layout {
        Layout::new(self.parallel.tensor, self.parallel.pipeline, self.parallel.data)
            .expect("a resolved configuration has a valid layout")
    }

    /// The learning rate, by the tokens consumed when the step is done.
    pub fn learning_rate(&self) -> LearningRate {
        LearningRate {
            peak: self.train.lr,
            min_ratio: self.train.min_lr_ratio,
            warmup_tokens: self.train.warmup_tokens,
            decay_tokens: self.train.decay_tokens,
        }
    }

    /// The global batch, by the samples consumed before the step.
    pub fn batch(&self) -> Batch {
        self.train.batch()
    }

    /// How kernels are chosen that do the same: under invariant numerics only among those that make the same bits.
    pub fn kernels(&self) -> Kernels {
        match (self.numerics.deterministic, self.numerics.mode) {
            (true, _) => Kernels::Fixed,
            (false, Mode::Invariant) => Kernels::SameBits,
            (false, Mode::Fast) => Kernels::Fastest,
        }
    }

    /// How the engine executes the layout.
    pub fn execution(&self) -> Execution {
        let parallel = &self.parallel;
        Execution {
            schedule: parallel.schedule,
            virtual_stages: parallel.virtual_stages,
            layers: (!parallel.layers.is_empty()).then(|| parallel.layers.clone()),
            sequence_parallel: parallel.sequence_parallel,
            scatter_gather: parallel.scatter_gather,
            recompute: parallel.recompute,
            recompute_outputs: false,
            sharded_optimizer: parallel.sharded_optimizer,
            bucket: parallel.bucket,
            numerics: match self.numerics.mode {
                Mode::Fast => Numerics::Fast,
                Mode::Invariant => Numerics::Invariant { chunks: self.numerics.chunks },
            },
            precision: self.train.precision,
            loss_scale: self.loss_scale,
        }
    }

    /// Microbatches that each replica runs in a step of the full batch.
    pub fn microbatches(&self) -> usize {
        self.layout().microbatches(self.train.micro_batch, self.train.global_batch)
    }

    /// Tokens of a step of the full batch, over all replicas.
    pub fn tokens_per_step(&self) -> u64 {
        self.train.global_batch as u64 * self.train.seq_len as u64
    }

    /// Tokens consumed by the first `steps` steps.
    pub fn tokens_after(&self, steps: u64) -> u64 {
        self.batch().samples_after(steps).saturating_mul(self.train.seq_len as u64)
    }

    /// The whole configuration as TOML, every key present.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a resolved configuration has only values that TOML can write")
    }
}

impl Train {
    /// The global batch, by the samples consumed before the step.
    pub fn batch(&self) -> Batch {
        Batch::new(self.global_batch, self.batch_ramp)
    }
}
