//! What a rank is told of a run and of a step, and what it answers.

use backend::{DType, Result};
use model::{DecoderOptions, GptConfig, Shard, StageOptions, StoreOptions};

use super::AdamWSettings;
use crate::layout::{Coordinates, Layout, virtual_stage_layers};
use crate::options::{Execution, Numerics};
use crate::schedule::Pipeline;

/// What a rank must know of a run.
#[derive(Clone, Debug)]
pub struct RankConfig {
    /// The model.
    pub model: GptConfig,
    /// The cut of the world.
    pub layout: Layout,
    /// How it is executed.
    pub execution: Execution,
    /// Tokens a sample.
    pub seq_len: usize,
    /// Samples that a replica runs at once.
    pub micro_batch: usize,
    /// Most samples a step.
    pub global_batch: usize,
    /// The optimizer.
    pub optimizer: AdamWSettings,
    /// Seed of initial weights and dropout.
    pub seed: u64,
    /// What is asked of the model between steps, at the most: memory for inference with the same weights. The types are those of the stages.
    pub inference: Option<DecoderOptions>,
}

impl RankConfig {
    /// The schedule of a step of `global_batch` samples.
    pub fn pipeline(&self, global_batch: usize) -> Pipeline {
        Pipeline {
            schedule: self.execution.schedule,
            stages: self.layout.pp(),
            chunks: self.execution.virtual_stages,
            microbatches: self.layout.microbatches(self.micro_batch, global_batch),
        }
    }

    /// The part of the model that chunk `chunk` of a rank holds.
    ///
    /// # Errors
    /// A layout that has more stages than there are layers.
    pub fn shard(&self, at: Coordinates, chunk: usize) -> Result<Shard> {
        let pipeline = self.pipeline(self.global_batch);
        let (stage, stages) = (pipeline.virtual_stage(at.pp, chunk), pipeline.stages * pipeline.chunks);
        let layers = self.execution.layers.as_deref();
        let layers = virtual_stage_layers(self.model.layers, layers, stages, stage).map_err(|error| {
            backend::Error::Argument {
                op: "layout",
                name: "pipeline",
                value: error.to_string(),
                range: "at most the number of layers",
            }
        })?;
        let (tp, sequence_parallel) = (self.layout.tp(), self.execution.sequence_parallel);
        let (chunks, token_chunks) = match self.execution.numerics {
            Numerics::Invariant { chunks } => (chunks, chunks),
            Numerics::Fast => (tp, if sequence_parallel { tp } else { 1 }),
        };
        Ok(Shard {
            tensor_rank: at.tp,
            tensor_size: tp,
            chunks,
            token_chunks,
            sequence_parallel,
            layers,
            first: stage == 0,
            last: stage + 1 == stages,
        })
    }

    /// How stages compute.
    pub fn stage_options(&self) -> StageOptions {
        let Execution { recompute, recompute_outputs, precision, numerics, sharded_optimizer, .. } =
            self.execution;
        let invariant = numerics != Numerics::Fast;
        let dtype = precision.dtype();
        let microbatches = self.layout.microbatches(self.micro_batch, self.global_batch);
        StageOptions {
            batch: self.micro_batch,
            seq: self.seq_len,
            partial: if invariant { DType::F32 } else { dtype },
            recompute,
            recompute_outputs,
            store: StoreOptions {
                dtype,
                parts: if sharded_optimizer { self.layout.dp() } else { 1 },
                tree: invariant.then_some(microbatches),
                gradients: true,
            },
        }
    }
}

/// What a step is to do.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan {
    /// Global index of its first sample.
    pub first_sample: u64,
    /// Samples; at most the configuration's.
    pub global_batch: usize,
    /// Learning rate.
    pub lr: f32,
    /// Whether this rank asks every rank to stop after this step.
    pub stop: bool,
}

/// What a step was like; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean loss of the global batch, in nats a token.
    pub loss: f32,
    /// Global norm of the gradients, before clipping.
    pub grad_norm: f32,
    /// Whether the weights were left as they were, because f16's gradients overflowed.
    pub skipped: bool,
    /// Whether a rank asked to stop after this step.
    pub stop: bool,
}
