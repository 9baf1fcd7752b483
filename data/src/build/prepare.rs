//! The text of a training run: the same pipeline, once, its result kept in a cache under the hash of everything that it depends on.
//!
//! ```text
//!   cache/<hash>/…                what a build leaves ([`super`]), but for its steps
//! ```
//!
//! Hash the inputs; where nothing is kept under that hash, run the recipe: extract, drop exact duplicates, train the tokenizer, encode. The folder is made
//! under another name and renamed when it is whole, so that a run that is killed leaves nothing half done and of two processes that prepare the same one
//! wins and both use its result.

use super::cache::{self, Entry};
use super::recipe::{self, Recipe, RecipeSet, Stage};
use crate::corpus::{Fallback, Notice, default_recipe};
use crate::dedup::{Dedup, DedupConfig};
use crate::extract::{Extract, Method};
use crate::indexed::IndexedDataset;
use crate::input::{Source, SourceKind};
use crate::step::{Progress, Watch, field};
use crate::tokenizer::TokenizerSpec;
use crate::{Error, Result, blend};
use std::path::{Path, PathBuf};

/// Goes into the hash of a cache entry: raise it whenever the same inputs would be prepared otherwise.
const FORMAT: &str = "data 2";

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
    /// Documents dropped as duplicates of earlier ones.
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
    /// Bytes of text a token, over the sets whose text is known. For exact figures of a sample see
    /// [`Tokenizer::byte_len`](crate::tokenizer::Tokenizer::byte_len).
    #[must_use]
    pub fn bytes_per_token(&self) -> Option<f64> {
        let known = self.sets.iter().filter_map(|set| Some((set.bytes?, set.tokens)));
        let (bytes, tokens) = known.fold((0, 0), |sum, set| (sum.0 + set.0, sum.1 + set.1));
        (tokens > 0).then(|| bytes as f64 / tokens as f64)
    }
}

/// Bits a byte of text: `nats` is the sum of the losses of tokens that stand for `bytes` of text
/// ([`Tokenizer::byte_len`](crate::tokenizer::Tokenizer::byte_len) of the targets).
#[must_use]
pub fn bits_per_byte(nats: f64, bytes: u64) -> f64 {
    nats / std::f64::consts::LN_2 / bytes as f64
}

/// Prepare, or find it prepared.
///
/// `progress` is called as work goes on, from the calling thread.
///
/// # Errors
/// Any of the user's mistakes: missing paths, sources without text, records that cannot be read, damaged pairs, a tokenizer that does not load, weights on
/// some sources only, a full disk. See [`Error`].
pub fn prepare(request: &Request, progress: &mut Watch<'_>) -> Result<Prepared> {
    let (mut recipe, tokens, mut notices) = match &request.corpus {
        Corpus::Default(fallback) => {
            let (recipe, notices) = default_recipe(fallback)?;
            (recipe, Vec::new(), notices)
        }
        Corpus::Sources(sources) if sources.is_empty() => return Err(Error::NoSources),
        Corpus::Sources(sources) => {
            let (recipe, tokens) = of_sources(sources);
            (recipe, tokens, Vec::new())
        }
    };
    recipe.tokenizer = request.tokenizer.clone();
    let all: Vec<&RecipeSet> = recipe.sets.iter().chain(tokens.iter().map(|(_, set)| set)).collect();
    recipe::check_weights(all)?;
    if let (Some((_, set)), TokenizerSpec::Train { .. }) = (tokens.first(), &request.tokenizer) {
        return Err(Error::TokensNeedTokenizer { path: set.sources[0].path() });
    }
    let weights: Vec<Option<f64>> = recipe.sets.iter().map(|set| set.weight).collect();
    let (mut sets, tokenizer, cached) = if recipe.sets.is_empty() {
        request.tokenizer.load()?;
        (Vec::new(), request.tokenizer.clone(), true)
    } else {
        let (entry, cached) = find_or_build(&mut recipe, &request.cache, progress)?;
        if entry.rebuilt {
            let message =
                format!("the cache entry {} was damaged and has been made again", entry.folder.display());
            notices.push(Notice { message, remedy: "check the disk if it happens again".to_owned() });
        }
        (entry.records(), entry.tokenizer(), cached)
    };
    for (set, weight) in sets.iter_mut().zip(weights) {
        set.weight = weight.unwrap_or(set.tokens as f64);
    }
    for (at, set) in &tokens {
        sets.insert(*at, tokens_set(set)?);
    }
    let weights = blend::normalize(&sets.iter().map(|set| set.weight).collect::<Vec<_>>())?;
    for (set, weight) in sets.iter_mut().zip(weights) {
        set.weight = weight;
    }
    Ok(Prepared { sets, tokenizer, notices, cached })
}

/// The recipe for the sources of text, and the sources of tokens with their places in the list.
fn of_sources(sources: &[Source]) -> (Recipe, Vec<(usize, RecipeSet)>) {
    let mut recipe = Recipe { bad_limit: Some(0), ..Recipe::default() };
    let mut tokens = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let set =
            RecipeSet { name: source.name.clone(), weight: source.weight, sources: vec![source.clone()] };
        match source.kind {
            SourceKind::Tokens(_) => tokens.push((i, set)),
            _ => recipe.sets.push(set),
        }
    }
    let all: Vec<usize> = (0..recipe.sets.len()).collect();
    let exact = DedupConfig { fuzzy: false, ..DedupConfig::default() };
    let dedup = Dedup::new(exact, None).expect("the default of a dedup is in range");
    recipe.stages = vec![
        Stage { step: Box::new(Extract { method: Method::Page, language: None }), sets: all.clone() },
        Stage { step: Box::new(dedup), sets: all },
    ];
    (recipe, tokens)
}

fn tokens_set(set: &RecipeSet) -> Result<SetInfo> {
    let SourceKind::Tokens(prefix) = &set.sources[0].kind else {
        unreachable!("the set was chosen for its tokens")
    };
    let pair = IndexedDataset::open(prefix)?;
    if pair.tokens() == 0 {
        return Err(Error::EmptyCorpus {
            path: prefix.clone(),
            reason: "the pair has no tokens".to_owned(),
            remedy: "prepare it again or leave it out",
        });
    }
    Ok(SetInfo {
        name: set.name.clone(),
        prefix: prefix.clone(),
        weight: set.weight.unwrap_or(pair.tokens() as f64),
        documents: pair.documents(),
        duplicates: 0,
        tokens: pair.tokens(),
        bytes: None,
    })
}

fn find_or_build(recipe: &mut Recipe, cache: &Path, progress: &mut Watch<'_>) -> Result<(Entry, bool)> {
    let folder = cache.join(key(recipe, progress)?);
    let damaged = folder.exists();
    if let Some(entry) = Entry::open(&folder) {
        return Ok((entry, true));
    }
    let building = cache::building(cache)?;
    super::build(recipe, building.path(), progress)?;
    // The text is where it came from; the cache is for tokens.
    let steps = building.path().join("steps");
    std::fs::remove_dir_all(&steps).map_err(Error::io("remove", &steps))?;
    let mut entry = cache::publish(building, &folder)?;
    entry.rebuilt = damaged;
    Ok((entry, false))
}

/// The hash of everything that decides the result: the recipe's steps and tokenizer, the sets' names, file names and contents. Weights and the places of
/// files are no part of it.
fn key(recipe: &Recipe, progress: &mut Watch<'_>) -> Result<String> {
    use rayon::prelude::*;
    let mut hasher = blake3::Hasher::new();
    field(&mut hasher, FORMAT.as_bytes());
    match &recipe.tokenizer {
        TokenizerSpec::File(path) => {
            field(&mut hasher, &std::fs::read(path).map_err(Error::io("read", path))?);
        }
        spec => field(&mut hasher, spec.to_string().as_bytes()),
    }
    for stage in &recipe.stages {
        field(&mut hasher, stage.step.name().as_bytes());
        field(&mut hasher, stage.step.options().to_string().as_bytes());
    }
    let sets = recipe.open()?;
    let total: u64 = sets.iter().map(|set| set.files.bytes()).sum();
    let mut done = 0;
    for set in &sets {
        field(&mut hasher, set.name.as_bytes());
        field(&mut hasher, &(set.files.0.len() as u64).to_le_bytes());
        let hashes: Vec<Result<blake3::Hash>> = set.files.0.par_iter().map(|file| file.hash()).collect();
        for (file, hash) in set.files.0.iter().zip(hashes) {
            field(&mut hasher, file.name.as_bytes());
            field(&mut hasher, hash?.as_bytes());
        }
        done += set.files.bytes();
        progress(Progress { doing: "looking at the data".to_owned(), done, total });
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}
