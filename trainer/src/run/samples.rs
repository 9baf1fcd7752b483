//! The continuations at the end of a run: beginnings of held-out text, carried on by the model from its own checkpoint.

use backend::Backend;

use super::text::Text;
use crate::checkpoint::Reader;
use crate::config::RunConfig;
use crate::generate::{Sampling, continuations};
use crate::launch::{Job, World};
use crate::report::Sample;
use crate::{Error, Result};

/// How many.
const SAMPLES: u64 = 3;
/// Tokens of each prompt.
const PROMPT: usize = 32;
/// Tokens added to it.
const ADDED: usize = 96;

/// The job: all samples, on one rank.
pub struct Continue<'a> {
    /// The run.
    pub config: &'a RunConfig,
    /// Its text.
    pub text: &'a Text,
    /// Its checkpoint.
    pub checkpoint: &'a Reader,
}

impl Job for Continue<'_> {
    type Output = Vec<Sample>;

    fn run<B: Backend>(self, world: World<B>) -> Result<Vec<Sample>> {
        let Self { config, text, checkpoint } = self;
        let length = PROMPT.min(config.train.seq_len / 2).max(1);
        let prompts: Vec<Vec<u32>> = (0..SAMPLES.min(text.valid.len()))
            .map(|i| Ok(text.valid.sample(i)?[..length].to_vec()))
            .collect::<Result<_>>()?;
        let vocabulary = (text.tokenizer.vocab_size(), text.tokenizer.eod());
        let sampling = Sampling { temperature: 0.8, top_k: 40, tokens: ADDED, seed: config.train.seed };
        let added = world.run(|backend, communicator| {
            continuations(backend, communicator, &config.model, &prompts, vocabulary, sampling, |stage| {
                let parameters = stage.parameters();
                parameters.entries().iter().try_for_each(|entry| -> Result<()> {
                    let values = checkpoint.read(&entry.parameter.name, &entry.parameter.slice)?;
                    Ok(parameters.write(backend, entry, &values)?)
                })
            })
        })?;
        let added = added.first().ok_or_else(|| Error::other("no rank to generate on"))?;
        let decode = |(prompt, continuation): (&Vec<u32>, &Vec<u32>)| Sample {
            prompt: text.tokenizer.decode(prompt),
            continuation: text.tokenizer.decode(continuation),
        };
        Ok(prompts.iter().zip(added).map(decode).collect())
    }
}
