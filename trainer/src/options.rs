//! The engine's choices beside model, layout and batch: how a stage's memory, sums and types are handled.

use backend::DType;
use model::Recompute;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// The type of weights, activations and their gradients. Parameter gradients, moments and, beside narrower weights, a master copy are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// fp32 throughout.
    #[default]
    F32,
    /// bfloat16, as MT-NLG was trained.
    Bf16,
    /// IEEE half precision, with a dynamic loss scale.
    F16,
}

impl Precision {
    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::Bf16,
            Self::F16 => DType::F16,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// How the sums are taken that a layout can split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// Whatever is quickest: each layout has its own bits, the same run after run.
    Fast,
    /// As fixed trees over `chunks` parts of every axis that tensor parallelism splits, and over microbatches: the same bits in every layout.
    Invariant {
        /// Parts of an axis, C: a power of two that tp divides.
        chunks: usize,
    },
}

/// How a layout is executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// In which order a pipeline runs its microbatches.
    pub schedule: Schedule,
    /// Model chunks a stage, v; 1 unless the schedule is interleaved.
    pub virtual_stages: usize,
    /// Layers of each virtual stage, first to last; `None` shares them equally.
    pub layers: Option<Vec<usize>>,
    /// Whether the tensor group shares out the tokens between its matrix products (Korthikanti et al. 2022, section 4.2.2).
    pub sequence_parallel: bool,
    /// Whether a stage's tensor ranks each send their part of the output, gathered again behind the wire (NAR, section 4.1).
    pub scatter_gather: bool,
    /// What the backward computes again instead of keeping it.
    pub recompute: Recompute,
    /// Whether full recomputation computes a layer's output too, which nothing needs: for the simulation of software that does.
    pub recompute_outputs: bool,
    /// Whether each replica holds its share of the optimizer's state only (ZeRO-1).
    pub sharded_optimizer: bool,
    /// Elements of a gradient bucket: replicas reduce it while the last backward still runs. 0 reduces everything at once behind it.
    pub bucket: usize,
    /// How sums are taken.
    pub numerics: Numerics,
    /// The type of weights and activations.
    pub precision: Precision,
    /// The dynamic loss scale of f16.
    pub loss_scale: LossScale,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            schedule: Schedule::OneFOneB,
            virtual_stages: 1,
            layers: None,
            sequence_parallel: false,
            scatter_gather: true,
            recompute: Recompute::None,
            recompute_outputs: false,
            sharded_optimizer: false,
            bucket: 0,
            numerics: Numerics::Fast,
            precision: Precision::F32,
            loss_scale: LossScale::default(),
        }
    }
}

/// Megatron's dynamic loss scaler: halved after `hysteresis` steps with an infinite or NaN gradient, doubled after `window` steps without one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// The first scale.
    pub initial: f32,
    /// Never below this.
    pub min: f32,
    /// Steps without an overflow until the scale is doubled.
    pub window: u32,
    /// Overflows until the scale is halved.
    pub hysteresis: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { initial: 4_294_967_296.0, min: 1.0, window: 1000, hysteresis: 2 }
    }
}
