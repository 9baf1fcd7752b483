//! Looking at `.bin/.idx` pairs: samples in training order, the documents that they are cut from, and whether a pair is sound.

use crate::dataset::BlendedDataset;
use crate::indexed::IndexedDataset;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use serde::Serialize;
use std::ops::Range;
use std::path::Path;

/// One sample: where its tokens come from, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleView {
    /// Its number in training order.
    pub sample: u64,
    /// Index of the set that it comes from.
    pub set: usize,
    /// Its `s + 1` tokens; the first `s` are the input, the last `s` the targets.
    pub tokens: Vec<u32>,
    /// The documents that it is cut from, in order.
    pub documents: Vec<PieceView>,
}

/// A piece of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PieceView {
    /// Index of the document in the set's file.
    pub document: usize,
    /// First token, counted from the document's start.
    pub start: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// The text, where a tokenizer was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The samples `range` of a data set, with their text if a tokenizer is given.
///
/// # Errors
/// [`Error::OutOfRange`] for a range that ends past the last sample; those of reading.
pub fn samples(
    data: &BlendedDataset,
    range: Range<u64>,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<SampleView>> {
    let view = |i| {
        let tokens = data.sample(i)?;
        let (set, pieces) = data.pieces(i).ok_or_else(|| past_the_end(i, data.len()))?;
        let mut at = 0;
        let mut documents = Vec::new();
        for piece in pieces {
            let text = tokenizer.map(|tokenizer| tokenizer.decode(&tokens[at..at + piece.len]));
            at += piece.len;
            documents.push(PieceView {
                document: piece.document,
                start: piece.start,
                tokens: piece.len,
                text,
            });
        }
        Ok(SampleView { sample: i, set, tokens, documents })
    };
    if range.end > data.len() || range.start > range.end {
        return Err(past_the_end(range.end, data.len()));
    }
    range.map(view).collect()
}

fn past_the_end(i: u64, samples: u64) -> Error {
    let expected = format!("at most {samples}, the samples that there are");
    Error::OutOfRange { name: "end of the samples", value: i.to_string(), expected }
}

/// What a sound pair holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairFacts {
    /// Documents.
    pub documents: u64,
    /// Sequences: in files written here, documents that have a token.
    pub sequences: u64,
    /// Tokens.
    pub tokens: u64,
    /// Bytes a token.
    pub token_bytes: usize,
    /// The largest token.
    pub largest_token: Option<u32>,
    /// Sequences that do not end in the end-of-document token, where it is known.
    pub without_end: Option<u64>,
}

/// Read a whole pair: its index against both files' sizes, and every token against the vocabulary.
///
/// # Errors
/// Those of [`IndexedDataset::open`]; [`Error::TokenOutOfVocabulary`].
pub fn verify(prefix: &Path, tokenizer: Option<&Tokenizer>) -> Result<PairFacts> {
    let pair = IndexedDataset::open(prefix)?;
    let mut facts = PairFacts {
        documents: pair.documents(),
        sequences: pair.lengths().len() as u64,
        tokens: pair.tokens(),
        token_bytes: pair.token_type().bytes(),
        largest_token: None,
        without_end: tokenizer.map(|_| 0),
    };
    let mut tokens = Vec::new();
    let mut position = 0;
    for (i, &length) in pair.lengths().iter().enumerate() {
        tokens.clear();
        pair.read(i, 0, length as usize, &mut tokens)?;
        facts.largest_token = facts.largest_token.max(tokens.iter().max().copied());
        if let Some(tokenizer) = tokenizer {
            let vocab_size = tokenizer.vocab_size();
            if let Some(at) = tokens.iter().position(|&token| token as usize >= vocab_size) {
                return Err(Error::TokenOutOfVocabulary {
                    path: pair.path().to_owned(),
                    position: position + at as u64,
                    token: i64::from(tokens[at]),
                    vocab_size,
                });
            }
            if tokens.last() != Some(&tokenizer.eod()) {
                *facts.without_end.get_or_insert(0) += 1;
            }
        }
        position += u64::from(length);
    }
    Ok(facts)
}
