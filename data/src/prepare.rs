//! From sources and a tokenizer to `.bin/.idx` sets, once: the result is kept in a cache under the hash of everything that it depends on.
//!
//! ```text
//!   cache/<hash>/prepared.json    what is there
//!               /tokenizer.json   unless it is GPT-2's
//!               /00-book.bin, 00-book.idx, 01-reference.bin, …
//! ```
//!
//! The steps: hash the inputs; where nothing is kept under that hash, read the documents, drop exact duplicates (the first in the order of
//! the sets stays), train the tokenizer, encode, write. The folder is made under another name and renamed when it is whole, so that a run
//! that is killed leaves nothing half done and of two processes that prepare the same one wins and both use its result.

mod cache;
mod documents;
mod encode;

use crate::corpus::{Fallback, Notice, default_sources};
use crate::indexed::{IndexedDataset, TokenType};
use crate::source::{Source, SourceKind};
use crate::tokenizer::{self, Tokenizer, TokenizerSpec};
use crate::{Error, Result, blend};
use cache::{Entry, SetRecord};
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};

/// Text that a tokenizer is trained on at most; of larger corpora the first documents of each set.
const TRAINING_BYTES: usize = 256 << 20;

/// The text to prepare.
#[derive(Debug, Clone)]
pub enum Corpus {
    /// The toolchain's documentation, or what stands in for it.
    Default(Fallback),
    /// What the user named.
    Sources(Vec<Source>),
}

/// What to prepare.
#[derive(Debug, Clone)]
pub struct Request {
    /// The text.
    pub corpus: Corpus,
    /// The tokenizer.
    pub tokenizer: TokenizerSpec,
    /// Folder of the cache; made if it does not exist.
    pub cache: PathBuf,
}

/// The steps of a preparation, in order. A cached one ends after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Hashing the inputs, in bytes.
    Scan,
    /// Reading text for the tokenizer, in bytes of input.
    Read,
    /// Training the tokenizer, in one step.
    Train,
    /// Encoding and writing, in bytes of input.
    Encode,
}

impl Stage {
    /// A few words for a progress bar.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Scan => "looking at the data",
            Stage::Read => "reading text",
            Stage::Train => "training the tokenizer",
            Stage::Encode => "encoding",
        }
    }
}

/// How far a preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub stage: Stage,
    /// Done of it, in the step's unit.
    pub done: u64,
    /// All of it.
    pub total: u64,
}

/// One prepared set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Prefix of its `.bin/.idx` pair.
    pub prefix: PathBuf,
    /// Its share of the samples; the shares of all sets sum to 1.
    pub weight: f64,
    /// Documents.
    pub documents: u64,
    /// Documents dropped as exact duplicates of earlier ones.
    pub duplicates: u64,
    /// Tokens, with the end of each document.
    pub tokens: u64,
    /// Bytes of text in UTF-8; `None` for a pair that was given as tokens.
    pub bytes: Option<u64>,
}

/// What a preparation gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The sets, in the order of the sources.
    pub sets: Vec<SetInfo>,
    /// The tokenizer that made them: GPT-2's or a file, never one to train.
    pub tokenizer: TokenizerSpec,
    /// What the user should be told.
    pub notices: Vec<Notice>,
    /// Whether it was all there already.
    pub cached: bool,
}

impl Prepared {
    /// Bytes of text a token, over the sets whose text is known. For exact figures of a sample see [`Tokenizer::byte_len`].
    #[must_use]
    pub fn bytes_per_token(&self) -> Option<f64> {
        let known = self.sets.iter().filter_map(|set| Some((set.bytes?, set.tokens)));
        let (bytes, tokens) = known.fold((0, 0), |sum, set| (sum.0 + set.0, sum.1 + set.1));
        (tokens > 0).then(|| bytes as f64 / tokens as f64)
    }
}

/// Bits a byte of text: `nats` is the sum of the losses of tokens that stand for `bytes` of text ([`Tokenizer::byte_len`] of the targets).
#[must_use]
pub fn bits_per_byte(nats: f64, bytes: u64) -> f64 {
    nats / std::f64::consts::LN_2 / bytes as f64
}

/// Prepare, or find it prepared.
///
/// `progress` is called as work goes on, from the calling thread.
///
/// # Errors
/// Any of the user's mistakes: missing paths, sources without text, damaged pairs, a tokenizer that does not load, weights on some sources only, a
/// full disk. See [`Error`].
pub fn prepare(request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<Prepared> {
    let (sources, mut notices) = match &request.corpus {
        Corpus::Default(fallback) => default_sources(fallback)?,
        Corpus::Sources(sources) if sources.is_empty() => return Err(Error::NoSources),
        Corpus::Sources(sources) => (sources.clone(), Vec::new()),
    };
    check_weights(&sources)?;
    let given = |source: &&Source| matches!(source.kind, SourceKind::Tokens(_));
    if let (Some(source), TokenizerSpec::Train { .. }) = (sources.iter().find(given), &request.tokenizer) {
        return Err(Error::TokensNeedTokenizer { path: source.path() });
    }
    let texts: Vec<&Source> = sources.iter().filter(|source| !given(source)).collect();
    let (records, tokenizer, cached) = if texts.is_empty() {
        request.tokenizer.load()?;
        (Vec::new(), request.tokenizer.clone(), true)
    } else {
        let (entry, cached) = prepare_texts(&texts, request, progress)?;
        if entry.rebuilt {
            let message =
                format!("the cache entry {} was damaged and has been made again", entry.folder.display());
            notices.push(Notice { message, remedy: "check the disk if it happens again".to_owned() });
        }
        (entry.records(), entry.tokenizer(), cached)
    };
    let mut records = records.into_iter();
    let mut sets = Vec::new();
    for source in &sources {
        let mut set = match &source.kind {
            SourceKind::Tokens(prefix) => tokens_set(source, prefix)?,
            _ => records.next().expect("a prepared set for every source of text"),
        };
        set.weight = source.weight.unwrap_or(set.tokens as f64);
        sets.push(set);
    }
    let weights = blend::normalize(&sets.iter().map(|set| set.weight).collect::<Vec<_>>())?;
    for (set, weight) in sets.iter_mut().zip(weights) {
        set.weight = weight;
    }
    Ok(Prepared { sets, tokenizer, notices, cached })
}

fn check_weights(sources: &[Source]) -> Result<()> {
    let with = sources.iter().find(|source| source.weight.is_some());
    let without = sources.iter().find(|source| source.weight.is_none());
    match (with, without) {
        (Some(with), Some(without)) => Err(Error::MixedWeights {
            weighted: with.path().display().to_string(),
            unweighted: without.path().display().to_string(),
        }),
        _ => Ok(()),
    }
}

fn tokens_set(source: &Source, prefix: &Path) -> Result<SetInfo> {
    let pair = IndexedDataset::open(prefix)?;
    if pair.tokens() == 0 {
        return Err(Error::EmptyCorpus {
            path: prefix.to_owned(),
            reason: "the pair has no tokens".to_owned(),
            remedy: "prepare it again or leave it out",
        });
    }
    Ok(SetInfo {
        name: source.name.clone(),
        prefix: prefix.to_owned(),
        weight: 0.0,
        documents: pair.documents(),
        duplicates: 0,
        tokens: pair.tokens(),
        bytes: None,
    })
}

fn prepare_texts(
    sources: &[&Source],
    request: &Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Entry, bool)> {
    let json = match &request.tokenizer {
        TokenizerSpec::File(path) => Some(std::fs::read(path).map_err(Error::io("read", path))?),
        _ => None,
    };
    let scanned = documents::scan(sources, &request.tokenizer, json.as_deref(), progress)?;
    let folder = request.cache.join(&scanned.hash);
    let damaged = folder.exists();
    if let Some(entry) = Entry::open(&folder) {
        return Ok((entry, true));
    }
    let json = match &request.tokenizer {
        TokenizerSpec::Train { vocab_size } => {
            Some(train(sources, *vocab_size, scanned.bytes, progress)?.into_bytes())
        }
        _ => json,
    };
    let tokenizer = match &json {
        Some(json) => Tokenizer::from_json(json, &request.tokenizer.to_string())?,
        None => Tokenizer::gpt2(),
    };
    let building = cache::building(&request.cache)?;
    if let Some(json) = &json {
        let path = building.path().join(cache::TOKENIZER);
        std::fs::write(&path, json).map_err(Error::io("write", &path))?;
    }
    let token_type = TokenType::for_vocabulary(tokenizer.vocab_size());
    let sets = encode::encode(sources, &tokenizer, token_type, building.path(), scanned.bytes, progress)?;
    let mut entry = cache::publish(building, &folder, &sets)?;
    entry.rebuilt = damaged;
    Ok((entry, false))
}

fn train(
    sources: &[&Source],
    vocab_size: usize,
    total: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<String> {
    let mut texts = Vec::new();
    let mut taken = vec![0; sources.len()];
    let mut done = 0;
    documents::unique(sources, &mut |set, text, read| {
        done += read;
        progress(Progress { stage: Stage::Read, done: done.min(total), total });
        taken[set] += text.len();
        texts.push(text);
        Ok(if taken[set] < TRAINING_BYTES / sources.len() { Continue(()) } else { Break(()) })
    })?;
    progress(Progress { stage: Stage::Train, done: 0, total: 1 });
    let json = tokenizer::train(&texts, vocab_size)?;
    progress(Progress { stage: Stage::Train, done: 1, total: 1 });
    Ok(json)
}
