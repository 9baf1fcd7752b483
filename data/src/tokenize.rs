//! Text to a `.bin/.idx` pair, as Megatron-LM's `preprocess_data.py` writes it, byte for byte.
//!
//! Documents are encoded on all threads and written in the order of the input. A document whose text gives no token is an entry of the document index without a
//! sequence, and gets no end-of-document token either: so Megatron has it.

use crate::indexed::{TokenType, Writer};
use crate::input::Files;
use crate::record::Bad;
use crate::step::{Progress, Watch};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::ops::ControlFlow::Continue;
use std::path::Path;

/// Bad records that are told in full.
const TOLD: usize = 5;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tokenized {
    /// Documents, those without a token included.
    pub documents: u64,
    /// Documents without a token.
    pub empty: u64,
    /// Tokens, with the end of each document.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Records that could not be read.
    pub bad: u64,
    /// The first of them.
    pub first_bad: Vec<Bad>,
}

/// Encodes the records of `files` into `prefix.bin`, `prefix.idx`.
///
/// `append_eod`: end every document with the tokenizer's end-of-document token. `bad_limit`: how many records may be unreadable; `None`: any number.
///
/// # Errors
/// [`Error::TooManyBad`]; [`Error::Tokenizer`] where a loaded tokenizer has no token for a text; [`Error::Io`]. Then nothing is written.
pub fn tokenize(
    files: &Files,
    tokenizer: &Tokenizer,
    append_eod: bool,
    prefix: &Path,
    bad_limit: Option<u64>,
    progress: &mut Watch<'_>,
) -> Result<Tokenized> {
    let mut writer = Writer::create(prefix, TokenType::for_vocabulary(tokenizer.vocab_size()))?;
    let mut sum = Tokenized::default();
    let total = files.bytes();
    let mut done = 0;
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    let doing = format!("tokenize {name}");
    files.stream(
        |_, record| match record {
            Ok(record) if record.html => {
                let reason = format!("{} is a page; take its text with `extract` first", record.id);
                Ok(Err(Bad::new(&record.id, 0, reason, record.text.as_bytes())))
            }
            Ok(record) => {
                let mut tokens = tokenizer.encode(&record.text)?;
                if append_eod && !tokens.is_empty() {
                    tokens.push(tokenizer.eod());
                }
                Ok(Ok((tokens, record.text.len() as u64)))
            }
            Err(bad) => Ok(Err(bad)),
        },
        &mut |result: Result<std::result::Result<(Vec<u32>, u64), Bad>>, read| {
            done += read;
            match result? {
                Ok((tokens, bytes)) => {
                    sum.documents += 1;
                    sum.bytes += bytes;
                    sum.tokens += tokens.len() as u64;
                    if tokens.is_empty() {
                        sum.empty += 1;
                        writer.empty_document();
                    } else {
                        writer.document(&tokens)?;
                    }
                }
                Err(bad) => {
                    sum.bad += 1;
                    if bad_limit.is_some_and(|limit| sum.bad > limit) {
                        return Err(Error::too_many_bad(bad_limit.unwrap_or_default(), bad));
                    }
                    if sum.first_bad.len() < TOLD {
                        sum.first_bad.push(bad);
                    }
                }
            }
            progress(Progress { doing: doing.clone(), done: done.min(total), total });
            Ok(Continue(()))
        },
    )?;
    writer.finish()?;
    Ok(sum)
}
