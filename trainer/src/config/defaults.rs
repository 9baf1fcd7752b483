//! How each preset is trained unless told otherwise: one row a preset.

use std::path::PathBuf;

use eval::shots::Shots;
use model::Recompute;

use super::{
    BackendChoice, Data, Evaluation, Mode, NumericsConfig, Parallel, Run, RunConfig, Split, Tokenizer, Train,
};
use crate::batch::{Batch, BatchRamp};
use crate::options::{LossScale, Precision};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// The preset of a run that names none.
pub const DEFAULT_PRESET: &str = "laptop";

/// How a row's lengths are given: run, warm-up, end of the cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// In steps.
    Steps([u64; 3]),
    /// In tokens.
    Tokens([u64; 3]),
}
use Length::{Steps, Tokens};

/// One row of [`TRAINING`].
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The model's name among [`model::presets`].
    pub preset: &'static str,
    /// Tensor, pipeline, data.
    pub layout: [usize; 3],
    /// Samples that a replica runs at once, and samples a step.
    pub batch: [usize; 2],
    /// The run, the warm-up, and until the end of the cosine.
    pub length: Length,
    /// The smaller batches before the full one.
    pub ramp: BatchRamp,
    /// Type of weights and activations, and what the backward computes again.
    pub memory: (Precision, Recompute),
    /// Peak learning rate.
    pub lr: f64,
    /// Where the cosine ends, as a fraction of it.
    pub min_lr_ratio: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Steps between validations, and global batches of each.
    pub validation: [u64; 2],
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

/// Every preset's training.
///
/// * `laptop`: 3.5 M tokens, which two CPU cores take in about four minutes.
/// * `gpt2` family: learning rates, batches (in tokens), 375 M tokens of warm-up and 300 B tokens in all are those of GPT-3's models of the same size
///   (Brown et al. 2020, table 2.1 and appendix B); GPT-2's own were never published.
/// * `megatron-8.3b`: Shoeybi et al. 2019, section 4. `turing-nlg-17b`: Microsoft's announcement, 2020.
/// * `mt-nlg-530b`: section 2.3: 270 B tokens of a cosine over 340 B, 1 B of warm-up, the batch from 32 to 1920 over 12 B; bf16, 280 GPUs a replica.
pub const TRAINING: [Training; 9] = [
    Training {
        layout: [2, 2, 2],
        batch: [2, 8],
        length: Steps([1700, 100, 1700]),
        lr: 5e-3,
        min_lr_ratio: 0.01,
        validation: [128, 8],
        checkpoint_every: 400,
        ..row("laptop")
    },
    Training { batch: [4, 512], length: Steps([572_205, 715, 572_205]), lr: 6e-4, ..row("gpt2") },
    Training { batch: [4, 512], length: Steps([572_205, 715, 572_205]), lr: 3e-4, ..row("gpt2-medium") },
    Training { batch: [2, 512], length: Steps([572_205, 715, 572_205]), lr: 2.5e-4, ..row("gpt2-large") },
    Training { batch: [2, 1024], length: Steps([286_102, 358, 286_102]), lr: 2e-4, ..row("gpt2-xl") },
    Training {
        layout: [8, 1, 64],
        batch: [8, 512],
        length: Steps([300_000, 3000, 300_000]),
        lr: 1.5e-4,
        min_lr_ratio: 1.0 / 15.0,
        weight_decay: 0.01,
        ..row("megatron-8.3b")
    },
    Training {
        layout: [4, 1, 64],
        batch: [8, 512],
        length: Steps([300_000, 3200, 300_000]),
        lr: 1.5e-4,
        ..row("turing-nlg-17b")
    },
    Training {
        layout: [8, 12, 16],
        batch: [1, 1536],
        length: Steps([95_367, 119, 82_652]),
        lr: 6e-5,
        ..row("gpt3-175b")
    },
    Training {
        layout: [8, 35, 8],
        batch: [1, 1920],
        length: Tokens([270_000_000_000, 1_000_000_000, 340_000_000_000]),
        // 12 B tokens.
        ramp: BatchRamp { start: 32, increment: 32, samples: 5_859_375 },
        memory: (Precision::Bf16, Recompute::Full),
        lr: 5e-5,
        ..row("mt-nlg-530b")
    },
];

/// What the rows have in common.
const fn row(preset: &'static str) -> Training {
    Training {
        preset,
        layout: [1, 1, 1],
        batch: [1, 1],
        length: Steps([1, 0, 1]),
        ramp: BatchRamp { start: 0, increment: 0, samples: 0 },
        memory: (Precision::F32, Recompute::None),
        lr: 0.0,
        min_lr_ratio: 0.1,
        weight_decay: 0.1,
        validation: [1000, 16],
        checkpoint_every: 1000,
    }
}

/// Where a preset's runs go unless told otherwise.
pub fn run_dir(preset: &str) -> PathBuf {
    PathBuf::from("runs").join(preset)
}

/// A preset's whole configuration.
///
/// # Errors
/// A preset that is not there, with the names of those that are.
pub fn preset(name: &str) -> Result<RunConfig> {
    let found = model::presets::find(name).zip(TRAINING.iter().find(|row| row.preset == name));
    let Some((preset, training)) = found else {
        let names: Vec<&str> = model::presets::all().iter().map(|preset| preset.name).collect();
        return Err(Error::user(format!("there is no preset `{name}`"))
            .remedy(format!("choose one of {}", names.join(", "))));
    };
    let [tensor, pipeline, data] = training.layout;
    let [micro_batch, global_batch] = training.batch;
    let batch = Batch::new(global_batch, training.ramp);
    let seq_len = preset.config.seq_len;
    let [tokens, warmup_tokens, decay_tokens] = match training.length {
        Tokens(tokens) => tokens,
        Steps(steps) => steps.map(|steps| batch.samples_after(steps) * seq_len as u64),
    };
    let steps = |tokens: u64| batch.steps_for(tokens.div_ceil(seq_len as u64));
    let (precision, recompute) = training.memory;
    let [valid_every, valid_batches] = training.validation;
    let tokenizer = match preset.config.vocab {
        small if small < 50_257 => Tokenizer::Bpe(small),
        _ => Tokenizer::Gpt2,
    };
    Ok(RunConfig {
        preset: name.into(),
        parallel: Parallel {
            tensor,
            pipeline,
            data,
            schedule: Schedule::OneFOneB,
            virtual_stages: 1,
            layers: vec![],
            sequence_parallel: false,
            scatter_gather: true,
            recompute,
            sharded_optimizer: false,
            bucket: 0,
        },
        numerics: NumericsConfig { mode: Mode::Fast, chunks: 8, deterministic: false },
        train: Train {
            steps: steps(tokens),
            tokens,
            seq_len,
            micro_batch,
            global_batch,
            batch_ramp: training.ramp,
            precision,
            lr: training.lr,
            min_lr_ratio: training.min_lr_ratio,
            warmup_steps: steps(warmup_tokens),
            warmup_tokens,
            decay_steps: steps(decay_tokens),
            decay_tokens,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: training.weight_decay,
            clip: 1.0,
            seed: 1234,
            valid_every,
            valid_batches,
            checkpoint_every: training.checkpoint_every,
            keep_checkpoints: 3,
        },
        loss_scale: LossScale::default(),
        evaluation: Evaluation {
            tasks: vec![],
            every: 0,
            shots: vec![Shots::Count(0)],
            limit: 0,
            data: vec![],
        },
        model: preset.config,
        data: Data { sources: vec![], tokenizer, split: Split { train: 949.0, valid: 50.0, test: 1.0 } },
        run: Run {
            dir: run_dir(name),
            backend: BackendChoice::Auto,
            cluster: "selene".into(),
            stack: "mtnlg".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_valid_training() {
        for model in model::presets::all() {
            let config = preset(model.name).unwrap();
            config.validate().unwrap_or_else(|error| panic!("{}: {error}", model.name));
        }
        assert_eq!(TRAINING.len(), model::presets::all().len());
    }

    #[test]
    fn published_totals() {
        let tokens = |name: &str| {
            let config = preset(name).unwrap();
            config.train.tokens as f64 / 1e9
        };
        assert_eq!(tokens("mt-nlg-530b"), 270.0);
        assert!((tokens("gpt3-175b") - 300.0).abs() < 0.01);
        assert!((tokens("gpt2") - 300.0).abs() < 0.01);
        assert_eq!(preset("mt-nlg-530b").unwrap().microbatches(), 240);
    }

    /// The recipe in `configs/` against the preset and the published figures.
    #[test]
    fn the_recipe_of_mt_nlg() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/mt-nlg-530b.toml");
        let recipe = RunConfig::load(&path).unwrap();
        let preset = preset("mt-nlg-530b").unwrap();
        // All of it is the preset's but the data.
        assert_eq!(RunConfig { data: preset.data.clone(), ..recipe.clone() }, preset);
        assert_eq!(recipe.data.tokenizer, preset.data.tokenizer);

        // Table 1: 15 sets, whose weights are all of it.
        let weights: Vec<f64> = recipe.data.sources.iter().map(|source| source.weight.unwrap()).collect();
        assert_eq!(weights.len(), 15);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{}", weights.iter().sum::<f64>());
        assert_eq!(weights.iter().copied().fold(0.0, f64::max), 0.19336);

        assert_eq!(recipe.model.parameters(), 529_600_819_200);
        assert_eq!(recipe.layout().world_size(), 2240);
        assert_eq!((recipe.microbatches(), recipe.model.head_dim()), (240, 160));
        assert_eq!((recipe.train.precision, recipe.parallel.recompute), (Precision::Bf16, Recompute::Full));

        let (batch, lr) = (recipe.batch(), recipe.learning_rate());
        let sizes: Vec<usize> = batch.stretches().map(|stretch| stretch.batch).collect();
        assert_eq!(sizes, (1..=60).map(|i| 32 * i).collect::<Vec<_>>());
        assert_eq!(batch.ramp_samples() * 2048, 12_000_000_000);
        assert_eq!((lr.at(1_000_000_000), lr.at(500_000_000)), (5e-5, 2.5e-5));
        assert_eq!(lr.at(340_000_000_000), 5e-6);
        // The end of the run is before the end of the cosine: t = 269/339.
        let t = 269.0 / 339.0 * std::f64::consts::PI;
        assert!((lr.at(270_000_000_000) - (5e-6 + 4.5e-5 * 0.5 * (1.0 + t.cos()))).abs() < 1e-18);
        // 12 B tokens along the ramp, then steps of 1920.
        let ramp = batch.steps_for(batch.ramp_samples());
        let tokens: u64 = batch.steps().take(ramp as usize).map(|step| step.samples as u64 * 2048).sum();
        assert_eq!(recipe.train.steps, ramp + (270_000_000_000 - tokens).div_ceil(1920 * 2048));
    }

    #[test]
    fn an_unknown_preset_lists_the_known() {
        let message = preset("gpt5").unwrap_err().to_string();
        assert!(message.contains("no preset `gpt5`") && message.contains("laptop, gpt2"), "{message}");
    }
}
