//! Prompts to texts: what `generate`, the probes and the samples at the end of a run have in common.

use data::tokenizer::Tokenizer;

use super::text::TextStream;
use super::{Batcher, Event, Finish, Model, Prompt};
use crate::Result;

/// A continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Continues all prompts at once, each until one of `stops`; `piece` hears of each one's new text as it comes.
///
/// # Errors
/// Those of the model; a prompt that is empty or too long.
pub fn write(
    model: &mut dyn Model,
    tokenizer: &Tokenizer,
    prompts: Vec<Prompt>,
    stops: &[String],
    mut piece: impl FnMut(usize, &str),
) -> Result<Vec<Written>> {
    let mut batcher = Batcher::new(model);
    let nothing = || Written { text: String::new(), tokens: 0, finish: Finish::Length };
    let mut drafts: Vec<(TextStream, Written)> =
        prompts.iter().map(|_| (TextStream::new(stops), nothing())).collect();
    for prompt in prompts {
        batcher.add(prompt)?;
    }
    while !batcher.is_empty() {
        for event in batcher.step(model)? {
            let (id, text) = match event {
                Event::Echoed { .. } => continue,
                Event::Token { id, token, .. } => {
                    let (stream, written) = &mut drafts[id as usize];
                    written.tokens += 1;
                    let text = stream.push(tokenizer, token);
                    if stream.stopped() {
                        written.finish = Finish::End;
                        batcher.cancel(id);
                    }
                    (id, text)
                }
                Event::Finished { id, why } => {
                    let (stream, written) = &mut drafts[id as usize];
                    let text = stream.finish(tokenizer);
                    written.finish = if stream.stopped() { Finish::End } else { why };
                    (id, text)
                }
            };
            drafts[id as usize].1.text.push_str(&text);
            piece(id as usize, &text);
        }
    }
    Ok(drafts.into_iter().map(|(_, written)| written).collect())
}
