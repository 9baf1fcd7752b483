//! `mtnlg eval` and `mtnlg probe`: a checkpoint as what the tasks ask, and as what the probes have write.

use clap::Args;
use eval::cli::EvalArgs;
use eval::probe::{Ask, Generator, ProbeArgs};
use eval::report::Subject;
use eval::scorer::{Counter, Request, Scored, Scorer};

use super::loaded::{GROUP, Loaded, ModelArgs, Needs, TASK_TOKENS};
use super::scoring::{Encoded, score};
use super::{Model, Prompt, Sampling, writing};
use crate::{Error, Result};

/// `mtnlg eval`.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    #[command(flatten)]
    model: Option<ModelArgs>,
    #[command(flatten)]
    eval: EvalArgs,
    /// Tokens that the model reads at once
    #[arg(long, value_name = "N", default_value_t = TASK_TOKENS)]
    batch_tokens: usize,
}

/// `mtnlg probe`.
#[derive(Clone, Debug, Args)]
pub struct ProbeModelArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

impl EvaluateArgs {
    /// Does it; returns what is to be printed, `None` on processes that have not the say.
    ///
    /// # Errors
    /// The user's mistakes, those of the ranks.
    pub fn run(&self) -> Result<Option<String>> {
        if self.eval.formats {
            return Ok(Some(eval::report::formats()));
        }
        let model = self.model.as_ref().ok_or_else(|| {
            Error::user("there is no model to evaluate")
                .remedy("give --checkpoint, a run or one of its checkpoints")
        })?;
        let prepared = self.eval.prepare().map_err(told)?;
        let mut loaded = Loaded::open(model)?;
        loaded.reserve(Needs::of_tasks(self.batch_tokens, loaded.model().seq_len));
        let subject = subject(&loaded, model);
        let journal = loaded.run_dir().join("eval");
        let report = super::run(&loaded, model, |model| {
            let mut scorer = Checkpoint { loaded: &loaded, model };
            prepared.run(&mut scorer, &subject, &journal).map_err(told)
        })?;
        Ok(report.map(|report| eval::report::text::report(&report)))
    }
}

impl ProbeModelArgs {
    /// As [`EvaluateArgs::run`].
    ///
    /// # Errors
    /// The user's mistakes, those of the ranks.
    pub fn run(&self) -> Result<Option<String>> {
        let mut loaded = Loaded::open(&self.model)?;
        let length = loaded.model().seq_len;
        loaded.reserve(Needs { slots: GROUP, length, tokens: 256, rows: GROUP });
        let subject = subject(&loaded, &self.model);
        let report = super::run(&loaded, &self.model, |model| {
            self.probe.run(&mut Checkpoint { loaded: &loaded, model }, &subject).map_err(told)
        })?;
        Ok(report.map(|report| report.text()))
    }
}

/// What was evaluated, in words.
fn subject(loaded: &Loaded, args: &ModelArgs) -> Subject {
    let model = loaded.model();
    let ModelArgs { backend, tensor, pipeline, precision, numerics, .. } = args;
    let layout = format!("{backend}, {precision}, {numerics}, tensor {tensor}, pipeline {pipeline}");
    Subject {
        model: format!("{} layers, hidden {}, {} parameters", model.layers, model.hidden, model.parameters()),
        checkpoint: args.checkpoint.display().to_string(),
        key: format!("{} {backend} {precision} {numerics}", loaded.hash()),
        backend: layout,
    }
}

/// An error of the evaluation: its words say what, where and what to do; the user's unless the model's own.
fn told(error: eval::Error) -> Error {
    Error::user(error.to_string())
}

/// A model that is asked.
struct Checkpoint<'a> {
    loaded: &'a Loaded,
    model: &'a mut dyn Model,
}

impl Scorer for Checkpoint<'_> {
    fn score(&mut self, requests: &[Request], done: &mut dyn FnMut(usize, &Scored)) -> Result<()> {
        let length = self.max_tokens();
        let encode = |Request { context, continuation }: &Request| {
            Encoded::new(self.loaded.tokenizer(), context, continuation, length)
        };
        let encoded: Vec<Encoded> = requests.iter().map(encode).collect::<Result<_>>()?;
        score(self.model, &encoded, |i, scored| {
            done(i, scored);
            Ok(())
        })
    }
}

impl Counter for Checkpoint<'_> {
    type Error = Error;

    fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.loaded.tokenizer().encode(text)?.len())
    }

    fn max_tokens(&self) -> usize {
        self.loaded.options.length
    }
}

impl Generator for Checkpoint<'_> {
    type Error = Error;

    fn generate(&mut self, ask: &Ask) -> Result<Vec<Vec<String>>> {
        let tokenizer = self.loaded.tokenizer();
        let Ask { samples, max_tokens, temperature, top_p, seed, .. } = *ask;
        let sampling = Sampling { temperature, top_p, seed, ..Sampling::default() };
        let mut prompts = Vec::with_capacity(ask.prompts.len() * samples);
        for (i, text) in ask.prompts.iter().enumerate() {
            let mut tokens = tokenizer.encode(text)?;
            if tokens.is_empty() {
                tokens.push(tokenizer.eod());
            }
            // What is too long loses its beginning, as where continuations are scored.
            tokens.drain(..tokens.len().saturating_sub(self.loaded.options.length));
            for sample in 0..samples {
                let index = (i * samples + sample) as u64;
                let end = Some(tokenizer.eod());
                let tokens = tokens.clone();
                prompts.push(Prompt {
                    tokens,
                    most: max_tokens,
                    sampling,
                    index,
                    end,
                    likelihoods: None,
                    echo: false,
                });
            }
        }
        let texts = writing::write(self.model, tokenizer, prompts, &ask.stop, |_, _| {})?;
        let mut texts = texts.into_iter().map(|written| written.text);
        Ok(ask.prompts.iter().map(|_| texts.by_ref().take(samples).collect()).collect())
    }
}
