//! The continuations at the end of a run: beginnings of held-out text, carried on by the model from its own checkpoint.

use std::path::Path;

use super::text::Text;
use crate::checkpoint::Reader;
use crate::config::RunConfig;
use crate::device::Device;
use crate::exchange::Found;
use crate::inference::loaded::Needs;
use crate::inference::{Loaded, Prompt, Sampling, ranks, writing};
use crate::report::Sample;
use crate::{Error, Result};

/// How many.
const SAMPLES: u64 = 3;
/// Tokens of each prompt.
const PROMPT: usize = 32;
/// Tokens added to it.
const ADDED: usize = 96;

/// All samples, on one rank.
///
/// # Errors
/// Those of the checkpoint and the backend.
pub fn samples(
    device: &Device,
    config: &RunConfig,
    text: &Text,
    checkpoint: Reader,
    run: &Path,
) -> Result<Vec<Sample>> {
    let length = PROMPT.min(config.train.seq_len / 2).max(1);
    let sampling = Sampling { temperature: 0.8, top_k: 40, seed: config.train.seed, ..Sampling::default() };
    let prompts: Vec<Prompt> = (0..SAMPLES.min(text.valid.len()))
        .map(|index| {
            let tokens = text.valid.sample(index)?[..length].to_vec();
            let end = Some(text.tokenizer.eod());
            Ok(Prompt { tokens, most: ADDED, sampling, index, end, likelihoods: None, echo: false })
        })
        .collect::<Result<_>>()?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let beginnings: Vec<String> =
        prompts.iter().map(|prompt| text.tokenizer.decode(&prompt.tokens)).collect();
    let mut loaded = Loaded::whole(Found { reader: checkpoint, run: run.to_path_buf() })?;
    let slots = prompts.len();
    loaded.reserve(Needs { slots, length: config.model.seq_len, tokens: slots * length, rows: slots });
    let written =
        ranks::on(device, &loaded, |model| writing::write(model, &text.tokenizer, prompts, &[], |_, _| {}))?;
    let written = written.ok_or_else(|| Error::other("no rank to generate on"))?;
    let sample =
        |(prompt, written): (String, writing::Written)| Sample { prompt, continuation: written.text };
    Ok(beginnings.into_iter().zip(written).map(sample).collect())
}
