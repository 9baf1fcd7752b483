//! `--dry-run`: what a run would be, without the machine that it needs.
//!
//! A [`Plan`] has the resolved run in numbers: steps, tokens, FLOPs, bubble and traffic by the papers' [`formulas`], and for a rank of each pipeline stage the
//! bytes of its buffers. Those are no formula: [`memory()`] builds the rank's own objects on a backend that hands out no memory and writes down what it
//! is asked for. With `--reduce` the production run and the reduced one stand side by side.

pub mod formulas;
pub mod memory;
mod table;

use serde::Serialize;

use crate::Result;
use crate::batch::BatchRamp;
use crate::config::{Evaluation, RunConfig};
use crate::options::Precision;
use crate::schedule::{Costs, simulate};
use formulas::Sizes;

pub use memory::{RankPlan, memory};
pub use table::text;

/// A run in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The preset that it started from.
    pub preset: String,
    /// The model.
    pub model: model::GptConfig,
    /// Exact number of parameters, the tied embedding once.
    pub parameters: u64,
    /// Tensor x pipeline x data.
    pub layout: String,
    /// Ranks in all.
    pub ranks: usize,
    /// `gpipe`, `1f1b`, `interleaved` or `zb-h1`.
    pub schedule: String,
    /// Model chunks a stage.
    pub virtual_stages: usize,
    /// Type of weights and activations.
    pub precision: Precision,
    /// What the backward computes again.
    pub recompute: model::Recompute,
    /// Whether tensor ranks share out the tokens.
    pub sequence_parallel: bool,
    /// Whether replicas share out the optimizer's state.
    pub sharded_optimizer: bool,
    /// Samples that a replica runs at once.
    pub micro_batch: usize,
    /// Samples of a full step.
    pub global_batch: usize,
    /// The smaller batches before.
    pub batch_ramp: BatchRamp,
    /// Microbatches of a replica in a full step.
    pub microbatches: usize,
    /// Waiting over working time of a full step, where all stages and all of forward, gradient of the input and gradient of the weights take as long.
    pub bubble: f64,
    /// Tokens of a sample.
    pub seq_len: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens trained on: whole steps.
    pub tokens: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Tokens of its warm-up.
    pub warmup_tokens: u64,
    /// Tokens at the end of its cosine.
    pub decay_tokens: u64,
    /// Where the cosine ends, as a fraction of the peak.
    pub min_lr_ratio: f64,
    /// The tasks that the model is asked while it is trained, and when; null for none.
    pub evaluation: Option<String>,
    /// FLOPs of a full step, nothing computed twice.
    pub model_flops_per_step: f64,
    /// FLOPs that a full step executes.
    pub hardware_flops_per_step: f64,
    /// Model FLOPs of the whole run.
    pub model_flops: f64,
    /// Bytes that a rank sends to the next stage for a microbatch.
    pub pipeline_bytes_per_microbatch: f64,
    /// Bytes that a rank exchanges in its tensor group for a layer and microbatch.
    pub tensor_bytes_per_layer: f64,
    /// Bytes of a layer's activations of a microbatch by Korthikanti et al., who keep scores and dropout masks.
    pub published_activation_bytes_per_layer: f64,
    /// A rank of each stage.
    pub stages: Vec<RankPlan>,
}

impl Plan {
    /// The plan of a resolved run.
    ///
    /// # Errors
    /// None for a resolved configuration.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let RunConfig { model, parallel, train, .. } = config;
        let (layout, microbatches) = (config.layout(), config.microbatches());
        let sizes = sizes(config);
        let (b, t) = (train.micro_batch as f64, parallel.tensor as f64);
        let element = train.precision.dtype().size() as f64;
        let (batch, tokens) = (train.global_batch as f64, config.tokens_after(train.steps));
        let scattered = parallel.scatter_gather || parallel.sequence_parallel;
        let model_flops = formulas::model_flops(&sizes, batch);
        let kept = formulas::activation_bytes(&sizes, b, t, parallel.sequence_parallel, parallel.recompute);
        Ok(Self {
            preset: config.preset.clone(),
            model: model.clone(),
            parameters: model.parameters(),
            layout: layout.to_string(),
            ranks: layout.world_size(),
            schedule: parallel.schedule.to_string(),
            virtual_stages: parallel.virtual_stages,
            precision: train.precision,
            recompute: parallel.recompute,
            sequence_parallel: parallel.sequence_parallel,
            sharded_optimizer: parallel.sharded_optimizer,
            micro_batch: train.micro_batch,
            global_batch: train.global_batch,
            batch_ramp: train.batch_ramp,
            microbatches,
            bubble: bubble(config),
            seq_len: train.seq_len,
            steps: train.steps,
            tokens,
            lr: train.lr,
            warmup_tokens: train.warmup_tokens,
            decay_tokens: train.decay_tokens,
            min_lr_ratio: train.min_lr_ratio,
            evaluation: evaluation(config),
            model_flops_per_step: model_flops,
            hardware_flops_per_step: formulas::hardware_flops(&sizes, batch, parallel.recompute),
            model_flops: model_flops / (batch * sizes.seq) * tokens as f64,
            pipeline_bytes_per_microbatch: match parallel.pipeline {
                1 => 0.0,
                _ => formulas::pipeline_elements(&sizes, b, t, scattered) * element,
            },
            tensor_bytes_per_layer: formulas::tensor_elements(&sizes, b, t) * element,
            // There two bytes an element.
            published_activation_bytes_per_layer: kept * element / 2.0,
            stages: memory(config)?,
        })
    }
}

/// The evaluation in words.
fn evaluation(config: &RunConfig) -> Option<String> {
    let Evaluation { tasks, every, shots, limit, .. } = &config.evaluation;
    if tasks.is_empty() {
        return None;
    }
    let shots: Vec<String> = shots.iter().map(ToString::to_string).collect();
    let limit = if *limit > 0 { format!(", the first {limit} documents") } else { String::new() };
    let when = if *every > 0 { format!("every {every} steps") } else { "at the end".into() };
    Some(format!("{} with {} examples{limit}, {when}", tasks.join(" "), shots.join(", ")))
}

/// The schedule's own, from its instructions: the papers' formulas, and what they leave out (ZB-H1 of fewer microbatches than stages).
fn bubble(config: &RunConfig) -> f64 {
    let pipeline = config.pipeline(config.train.global_batch);
    let costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0 };
    match simulate(&pipeline, &pipeline.all_instructions(), costs) {
        Ok(timeline) => timeline.bubble(),
        Err(error) => unreachable!("a validated schedule does not run: {error}"),
    }
}

/// Bytes of a layer and microbatch that Megatron-LM keeps for the backward beside what this project keeps (dropout masks, scores, the attention's output), by
/// the difference of the formulas; never less than nothing.
pub fn beside_bytes(config: &RunConfig) -> f64 {
    let (sizes, parallel) = (sizes(config), &config.parallel);
    let (b, t) = (config.train.micro_batch as f64, parallel.tensor as f64);
    let element = config.train.precision.dtype().size() as f64;
    let published = formulas::activation_bytes(&sizes, b, t, parallel.sequence_parallel, parallel.recompute);
    let ours = formulas::kept_bytes(&sizes, b, t, parallel.sequence_parallel, parallel.recompute, element);
    (published * element / 2.0 - ours).max(0.0)
}

/// A configuration's sizes, as the papers' formulas take them.
pub fn sizes(config: &RunConfig) -> Sizes {
    let model = &config.model;
    Sizes {
        layers: model.layers as f64,
        hidden: model.hidden as f64,
        heads: model.heads as f64,
        seq: config.train.seq_len as f64,
        vocab: model.vocab as f64,
    }
}

/// What `--dry-run --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// The run; with `--reduce` the one that it is made from.
    pub production: Plan,
    /// The reduced run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduced: Option<Plan>,
}

impl std::fmt::Display for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reduced {
            None => f.write_str(&text(&[("run", &self.production)])),
            Some(reduced) => f.write_str(&text(&[("production", &self.production), ("reduced", reduced)])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, defaults};
    use crate::reduce::reduce;

    #[test]
    fn side_by_side() {
        let config = defaults::preset("mt-nlg-530b").unwrap();
        let reduced = reduce(&config, 10_000_000, 2).unwrap();
        let run =
            DryRun { production: Plan::new(&config).unwrap(), reduced: Some(Plan::new(&reduced).unwrap()) };
        let text = run.to_string();
        for words in [
            "production",
            "reduced",
            "529,600,819,200",
            "tensor 8 x pipeline 35 x data 8",
            "tensor 2 x pipeline 2 x data 2",
            "14.2%",
            "80,087",
            "270.0 B",
            "32 + 32 … 1920 over 12.0 B tokens",
            "stage",
            "workspace",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!(json["production"]["parameters"], 529_600_819_200u64);
        assert_eq!(json["production"]["stages"].as_array().unwrap().len(), 35);
        assert_eq!(json["reduced"]["microbatches"], 32);
        assert!(json["production"]["tokens"].as_u64().unwrap() >= 270_000_000_000);
    }

    #[test]
    fn the_bubble_is_the_papers() {
        for (sets, m, v) in [
            ("parallel.pipeline=4 train.global_batch=32", 8, 1),
            ("parallel.pipeline=4 parallel.schedule=gpipe train.global_batch=32", 8, 1),
            ("parallel.pipeline=2 parallel.schedule=interleaved train.global_batch=32", 8, 2),
            ("parallel.pipeline=4 parallel.schedule=zb-h1 train.global_batch=32", 8, 1),
        ] {
            let layers = Layers::default();
            let layers = sets.split(' ').fold(layers, |layers, set| layers.set(set).unwrap());
            let config = RunConfig::resolve(&layers).unwrap();
            let parallel = &config.parallel;
            let published = formulas::bubble(parallel.schedule, parallel.pipeline, m, v);
            assert!((bubble(&config) - published).abs() < 1e-9, "{sets}: {} {published}", bubble(&config));
        }
    }

    #[test]
    fn a_run_alone_has_one_column() {
        let run =
            DryRun { production: Plan::new(&defaults::preset("laptop").unwrap()).unwrap(), reduced: None };
        let text = run.to_string();
        assert!(text.contains("1,350,400"), "{text}");
        assert!(!text.contains("reduced") && text.contains("3.5 M"), "{text}");
        assert!(serde_json::to_value(&run).unwrap().get("reduced").is_none());
    }
}
