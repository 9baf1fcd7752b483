//! Training a byte-level BPE on a corpus.

use super::{END_OF_TEXT, Tokenizer};
use crate::{Error, Result};
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// The 256 bytes and the end-of-document token.
const SMALLEST_VOCAB: usize = 257;

/// Train a byte-level BPE of `vocab_size` tokens on `texts` and give the contents of its `tokenizer.json`, which [`Tokenizer::from_json`] loads.
///
/// `<|endoftext|>` is token 0, then come the 256 bytes, then the merges. Words are cut as GPT-2 cuts them; a merge must occur twice. A small corpus may give a
/// smaller vocabulary. The result depends on the texts and the size alone, not on threads: merges are chosen by count, ties by the
/// tokens' numbers.
///
/// # Errors
/// [`Error::OutOfRange`] for a vocabulary under 257 or over 2^31; [`Error::Tokenizer`] if the library fails.
pub fn train<S: AsRef<str> + Send + Sync>(texts: &[S], vocab_size: usize) -> Result<String> {
    if !(SMALLEST_VOCAB..=i32::MAX as usize).contains(&vocab_size) {
        return Err(Error::OutOfRange {
            name: "size of the vocabulary",
            value: vocab_size.to_string(),
            expected: format!("at least {SMALLEST_VOCAB} (256 bytes and {END_OF_TEXT})"),
        });
    }
    let failed = |source: tokenizers::Error| Error::Tokenizer {
        what: "training".to_owned(),
        reason: source.to_string(),
        remedy: "use `gpt2` or a tokenizer.json instead",
    };
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build()
        .into();
    tokenizer.train(&mut trainer, texts.iter().map(AsRef::as_ref)).map_err(failed)?;
    let json = tokenizer.to_string(true).map_err(failed)?;
    // Read back, so that what is written is known to load.
    Tokenizer::from_json(json.as_bytes(), "the tokenizer just trained")?;
    Ok(json)
}
