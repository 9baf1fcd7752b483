//! A checkpoint, its tokenizer, and how it is to be run.

use std::path::PathBuf;

use backend::{Backend, DType};
use clap::Args;
use data::tokenizer::Tokenizer;
use model::{DecoderOptions, GptConfig, ParameterStore, Shard};

use crate::config::BackendChoice;
use crate::exchange::Found;
use crate::layout::{Layout, stage_layers};
use crate::options::Precision;
use crate::{Error, Result};

/// Sequences of a group of choices with their common beginning, and some more.
pub const GROUP: usize = 17;
/// Tokens that a model reads at once where tasks are evaluated, unless told otherwise.
pub const TASK_TOKENS: usize = 512;

/// Which model, and where it runs.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A run, or one of its checkpoints
    #[arg(long, value_name = "CHECKPOINT")]
    pub checkpoint: PathBuf,
    /// Where the model runs: auto, cpu, wgpu or cuda
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub backend: BackendChoice,
    /// Tensor-parallel ranks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub tensor: usize,
    /// Pipeline stages
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pipeline: usize,
    /// Type of weights and activations: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = precision)]
    pub precision: Precision,
    /// How sums are taken: fast, or invariant for the same bits in every layout
    #[arg(long, value_name = "MODE", default_value = "fast", value_parser = ["fast", "invariant"])]
    pub numerics: String,
    /// Parts of every axis that tensor parallelism cuts, with invariant numerics: a power of two that --tensor divides
    #[arg(long, value_name = "C", default_value_t = 8)]
    pub chunks: usize,
}

fn precision(text: &str) -> std::result::Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "f16" => Ok(Precision::F16),
        _ => Err("f32, bf16 or f16".to_owned()),
    }
}

/// What a command needs of a model: the most that it does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Sequences at once.
    pub slots: usize,
    /// Tokens of a sequence; at most the model's.
    pub length: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Answers of a step.
    pub rows: usize,
}

impl Needs {
    /// For the evaluation tasks, whose requests are groups of choices: `tokens` a step, in sequences of at most `length`.
    pub fn of_tasks(tokens: usize, length: usize) -> Self {
        let tokens = tokens.max(1);
        Self { slots: GROUP, length, tokens, rows: tokens.min(256) }
    }
}

/// A model that is about to be used.
pub struct Loaded {
    found: Found,
    tokenizer: Tokenizer,
    chunks: usize,
    /// The ranks.
    pub layout: Layout,
    /// How each of them computes.
    pub options: DecoderOptions,
}

impl Loaded {
    /// Opens the checkpoint and checks that it can be run so.
    ///
    /// # Errors
    /// No checkpoint or a damaged one; a layout that does not fit the model.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        let found = Found::at(&args.checkpoint)?;
        let model = &found.reader.meta().model;
        let invariant = args.numerics == "invariant";
        let chunks = if invariant { args.chunks } else { args.tensor };
        let layout =
            Layout::new(args.tensor, args.pipeline, 1).map_err(|error| Error::user(error.to_string()))?;
        let fits = |what: &str, have: usize, parts: usize, flag: &str| match parts > 0
            && have.is_multiple_of(parts)
        {
            true => Ok(()),
            false => Err(Error::user(format!("{what}, {have}, cannot be cut in {parts} equal parts"))
                .remedy(format!("choose a {flag} that divides it"))),
        };
        let power =
            args.chunks.is_power_of_two() && args.tensor > 0 && args.chunks.is_multiple_of(args.tensor);
        if invariant && !power {
            return Err(Error::user(format!(
                "invariant numerics need a power of two that {} tensor ranks divide",
                args.tensor
            ))
            .value(format!("--chunks {}", args.chunks))
            .remedy("choose another --chunks or --tensor"));
        }
        let flag = if invariant { "--chunks" } else { "--tensor" };
        fits("the number of heads", model.heads, chunks, flag)?;
        fits("the MLP's inner size", model.ffn_hidden, chunks, flag)?;
        fits("the vocabulary with its padding", model.vocab, chunks, flag)?;
        if args.pipeline > model.layers {
            return Err(Error::user(format!(
                "a model of {} layers has no {} stages",
                model.layers, args.pipeline
            ))
            .remedy("choose a smaller --pipeline"));
        }
        let dtype = args.precision.dtype();
        let partial = if invariant { DType::F32 } else { dtype };
        Self::new(found, layout, chunks, [dtype, partial])
    }

    /// A model on one rank, in f32.
    ///
    /// # Errors
    /// Its tokenizer is not there.
    pub fn whole(found: Found) -> Result<Self> {
        let layout = Layout::new(1, 1, 1).map_err(|error| Error::user(error.to_string()))?;
        Self::new(found, layout, 1, [DType::F32; 2])
    }

    fn new(found: Found, layout: Layout, chunks: usize, [dtype, partial]: [DType; 2]) -> Result<Self> {
        let meta = found.reader.meta();
        let (length, vocabulary) = (meta.model.seq_len, meta.tokenizer.tokens.min(meta.model.vocab));
        let options = DecoderOptions { slots: 1, length, tokens: 1, rows: 1, vocabulary, dtype, partial };
        Ok(Self { tokenizer: found.tokenizer()?, chunks, layout, options, found })
    }

    /// Makes room for that.
    pub fn reserve(&mut self, needs: Needs) {
        let DecoderOptions { slots, length, tokens, rows, .. } = &mut self.options;
        *slots = needs.slots.max(1);
        *length = needs.length.clamp(1, self.found.reader.meta().model.seq_len);
        *tokens = needs.tokens.max(1);
        *rows = needs.rows.max(1);
    }

    /// The model's shape.
    pub fn model(&self) -> &GptConfig {
        &self.found.reader.meta().model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Which checkpoint it is, for people.
    pub fn name(&self) -> String {
        self.found.reader.dir().display().to_string()
    }

    /// The hash of the checkpoint.
    pub fn hash(&self) -> String {
        self.found.reader.hash()
    }

    /// The run directory that it lies in.
    pub fn run_dir(&self) -> &std::path::Path {
        &self.found.run
    }

    /// What all processes of a run must have in common.
    pub fn identity(&self) -> String {
        format!("{} {:?} {:?}", self.found.reader.hash(), self.layout, self.options)
    }

    /// The part of a rank.
    ///
    /// # Errors
    /// The layout does not fit.
    pub fn shard(&self, rank: usize) -> Result<Shard> {
        let (at, pp) = (self.layout.coordinates(rank), self.layout.pp());
        Ok(Shard {
            tensor_rank: at.tp,
            tensor_size: self.layout.tp(),
            chunks: self.chunks,
            token_chunks: 1,
            sequence_parallel: false,
            layers: stage_layers(self.model().layers, pp, at.pp).map_err(|e| Error::user(e.to_string()))?,
            first: at.pp == 0,
            last: at.pp + 1 == pp,
        })
    }

    /// Fills a rank's parameters.
    ///
    /// # Errors
    /// Those of the file system and the backend.
    pub fn fill<B: Backend>(&self, backend: &B, parameters: &ParameterStore<B>) -> Result<()> {
        parameters.entries().iter().try_for_each(|entry| {
            let values = self.found.reader.read(&entry.parameter.name, &entry.parameter.slice)?;
            Ok(parameters.write(backend, entry, &values)?)
        })
    }
}
