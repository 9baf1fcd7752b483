//! The whole chain: sets of raw text to `.bin/.idx` pairs, by a [`Recipe`].
//!
//! ```text
//!   OUTPUT/steps/1-extract/ …          each step of the recipe ([`crate::step`]); a set that a step does not name passes by it
//!         /tokenizer.json              unless it is GPT-2's
//!         /tokens/00-books.bin, .idx   a pair for each set, and what is in it (`00-books.json`)
//!         /prepared.json               the pairs, once all are there
//!         /report.html                 documents and bytes in and out of each step, reasons, samples of what was dropped
//!         /train.toml                  the [data] of a run: `mtnlg train --config OUTPUT/train.toml`
//! ```
//!
//! Interrupted anywhere, the same command goes on where it was: whatever is there and depends on what it depended on is not made again.

mod cache;
mod prepare;
mod recipe;
mod report;

pub use prepare::{Corpus, Prepared, Request, SetInfo, bits_per_byte, prepare};
pub use recipe::{Recipe, RecipeSet, Stage};

use crate::indexed::IndexedDataset;
use crate::input::Source;
use crate::step::{self, Manifest, Progress, Set, Watch, field};
use crate::tokenize::{Tokenized, tokenize};
use crate::tokenizer::{self, Tokenizer, TokenizerSpec};
use crate::{Error, Result, aside};
use cache::{RECORD, SetRecord, TOKENIZER};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};

/// Goes into the key of tokens: raise it whenever the same text would be encoded otherwise.
const FORMAT: &str = "data tokens 1";
/// Text that a tokenizer is trained on at most; of larger corpora the first documents of each set.
const TRAINING_BYTES: u64 = 256 << 20;
const TOKENS: &str = "tokens";

/// What a build did.
#[derive(Debug, Clone)]
pub struct Built {
    /// The folder.
    pub output: PathBuf,
    /// Name and manifest of each step.
    pub steps: Vec<Manifest>,
    /// The sets, their weights as the recipe has them.
    pub sets: Vec<SetRecord>,
    /// The tokenizer: GPT-2's or a file.
    pub tokenizer: TokenizerSpec,
}

/// Runs a recipe into the folder `output`, or what is not there yet of it.
///
/// # Errors
/// The user's mistakes in the recipe and the data ([`Error`]); an output folder that holds something else.
pub fn build(recipe: &mut Recipe, output: &Path, progress: &mut Watch<'_>) -> Result<Built> {
    let mut sets = recipe.open()?;
    recipe::check_weights(&recipe.sets)?;
    let record_path = output.join(RECORD);
    if output.is_dir() && !output.join("steps").exists() && !record_path.exists() {
        let mut entries = std::fs::read_dir(output).map_err(Error::io("list", output))?;
        if entries.next().is_some() {
            let reason = "it holds files that no build wrote".to_owned();
            return Err(Error::OutputInUse { path: output.to_owned(), reason });
        }
    }
    let folder = output.join("steps");
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    // From here on the result is not whole until it is again.
    if record_path.exists() {
        std::fs::remove_file(&record_path).map_err(Error::io("remove", &record_path))?;
    }
    let mut steps = Vec::new();
    for (i, stage) in recipe.stages.iter_mut().enumerate() {
        let Stage { step, sets: chosen } = stage;
        let input: Vec<Set> = chosen.iter().map(|&set| sets[set].clone()).collect();
        let into = folder.join(format!("{}-{}", i + 1, step.name()));
        let manifest = step::run(step.as_mut(), &input, &into, recipe.bad_limit, progress)?;
        for ((&set, after), record) in chosen.iter().zip(manifest.sets(&into)).zip(&manifest.sets) {
            if record.tally.documents_out == 0 {
                return Err(nothing_left(&recipe.sets[set], record));
            }
            sets[set] = after;
        }
        steps.push(manifest);
    }
    let (tokenizer, spec) = load_tokenizer(&recipe.tokenizer, &sets, output, progress)?;
    let tokens = output.join(TOKENS);
    std::fs::create_dir_all(&tokens).map_err(Error::io("create", &tokens))?;
    let mut records = Vec::new();
    for (i, set) in sets.iter().enumerate() {
        let file = format!("{i:02}-{}", step::file_name(&set.name));
        let prefix = tokens.join(&file);
        let made = encode(set, &tokenizer, &spec, &prefix, recipe.bad_limit, progress)?;
        if made.documents == made.empty {
            return Err(Error::EmptyCorpus {
                path: recipe.sets[i].name.clone().into(),
                reason: "no document of it has a token".to_owned(),
                remedy: "give a file or folder with text in it, or leave the set out",
            });
        }
        let dropped = |manifest: &Manifest| -> u64 {
            let mine =
                manifest.sets.iter().filter(|record| manifest.step == "dedup" && record.name == set.name);
            mine.flat_map(|record| record.tally.dropped.iter())
                .filter(|(reason, _)| reason.as_str() != "empty")
                .map(|(_, count)| count.documents)
                .sum()
        };
        records.push(SetRecord {
            name: set.name.clone(),
            file: format!("{TOKENS}/{file}"),
            documents: made.documents - made.empty,
            duplicates: steps.iter().map(dropped).sum(),
            tokens: made.tokens,
            bytes: made.bytes,
        });
    }
    let built = Built { output: output.to_owned(), steps, sets: records, tokenizer: spec };
    aside::write(&output.join("report.html"), report::html(recipe, &built).as_bytes())?;
    aside::write(&output.join("train.toml"), recipe::train_toml(recipe, &built).as_bytes())?;
    aside::write_json(&record_path, &built.sets)?;
    Ok(built)
}

fn nothing_left(set: &RecipeSet, record: &step::SetRecord) -> Error {
    let path = set.sources.first().map_or_else(|| set.name.clone().into(), Source::path);
    let tally = &record.tally;
    let duplicates = tally.dropped.iter().filter(|(reason, _)| reason.contains("duplicate"));
    let duplicates: u64 = duplicates.map(|(_, count)| count.documents).sum();
    if duplicates > 0 && duplicates == tally.documents_in {
        let reason = format!("its {duplicates} documents are all in the sources before it");
        return Error::EmptyCorpus { path, reason, remedy: "leave it out" };
    }
    if tally.documents_in > 0 {
        let reasons: Vec<String> =
            tally.dropped.iter().map(|(reason, count)| format!("{} {reason}", count.documents)).collect();
        let reason = format!("a step dropped all of its documents ({})", reasons.join(", "));
        return Error::EmptyCorpus { path, reason, remedy: "loosen the step or leave the set out" };
    }
    let (reason, remedy) = if path.is_dir() {
        (
            "no file under it has text and an extension that is read",
            "use .txt, .md, .html, .jsonl, .warc or source code, plain or as .gz or .zst",
        )
    } else {
        ("it is empty or white space", "give a file with text in it, or leave it out")
    };
    Error::EmptyCorpus { path, reason: reason.to_owned(), remedy }
}

/// What is kept beside something made: what it depended on, and what came of it.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    key: String,
    made: T,
}

impl<T: Serialize + serde::de::DeserializeOwned> Kept<T> {
    fn find(path: &Path, key: &str) -> Option<T> {
        let kept: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (kept.key == key).then_some(kept.made)
    }
}

fn hash_sets<'a>(sets: impl IntoIterator<Item = &'a Set>) -> Result<blake3::Hasher> {
    let mut hasher = blake3::Hasher::new();
    field(&mut hasher, FORMAT.as_bytes());
    for set in sets {
        for file in &set.files.0 {
            field(&mut hasher, file.name.as_bytes());
            field(&mut hasher, file.hash()?.as_bytes());
        }
        field(&mut hasher, b"");
    }
    Ok(hasher)
}

/// The tokenizer of a recipe, trained where it says so, and where it is from now on.
fn load_tokenizer(
    spec: &TokenizerSpec,
    sets: &[Set],
    output: &Path,
    progress: &mut Watch<'_>,
) -> Result<(Tokenizer, TokenizerSpec)> {
    let path = output.join(TOKENIZER);
    let kept = output.join("tokenizer.key.json");
    match spec {
        TokenizerSpec::Gpt2 => {
            // One of an earlier build with another tokenizer.
            let _ = std::fs::remove_file(&path);
            Ok((Tokenizer::gpt2(), TokenizerSpec::Gpt2))
        }
        TokenizerSpec::File(from) => {
            let json = std::fs::read(from).map_err(Error::io("read", from))?;
            let tokenizer = Tokenizer::from_json(&json, &spec.to_string())?;
            aside::write(&path, &json)?;
            Ok((tokenizer, TokenizerSpec::File(path)))
        }
        TokenizerSpec::Train { vocab_size } => {
            let mut hasher = hash_sets(sets)?;
            field(&mut hasher, &(*vocab_size as u64).to_le_bytes());
            let key = hasher.finalize().to_hex().to_string();
            if Kept::<()>::find(&kept, &key).is_some()
                && let Ok(tokenizer) = Tokenizer::from_file(&path)
            {
                return Ok((tokenizer, TokenizerSpec::File(path)));
            }
            let json = train(sets, *vocab_size, progress)?;
            aside::write(&path, json.as_bytes())?;
            aside::write_json(&kept, &Kept { key, made: () })?;
            Ok((Tokenizer::from_json(json.as_bytes(), &spec.to_string())?, TokenizerSpec::File(path)))
        }
    }
}

fn train(sets: &[Set], vocab_size: usize, progress: &mut Watch<'_>) -> Result<String> {
    let mut texts = Vec::new();
    let share = TRAINING_BYTES / sets.len().max(1) as u64;
    for set in sets {
        let mut taken = 0;
        set.files.records(&mut |record| {
            taken += record.text.len() as u64;
            texts.push(record.text);
            Ok(if taken < share { Continue(()) } else { Break(()) })
        })?;
    }
    let doing = "training the tokenizer".to_owned();
    progress(Progress { doing: doing.clone(), done: 0, total: 1 });
    let json = tokenizer::train(&texts, vocab_size)?;
    progress(Progress { doing, done: 1, total: 1 });
    Ok(json)
}

/// A set's pair, made or found.
fn encode(
    set: &Set,
    tokenizer: &Tokenizer,
    spec: &TokenizerSpec,
    prefix: &Path,
    bad_limit: Option<u64>,
    progress: &mut Watch<'_>,
) -> Result<Tokenized> {
    let mut hasher = hash_sets([set])?;
    match spec {
        TokenizerSpec::File(path) => {
            field(&mut hasher, &std::fs::read(path).map_err(Error::io("read", path))?);
        }
        other => field(&mut hasher, other.to_string().as_bytes()),
    }
    let key = hasher.finalize().to_hex().to_string();
    let mut kept = prefix.as_os_str().to_owned();
    kept.push(".json");
    let kept = PathBuf::from(kept);
    if let Some(made) = Kept::<Tokenized>::find(&kept, &key)
        && IndexedDataset::open(prefix).is_ok_and(|pair| pair.tokens() == made.tokens)
    {
        return Ok(made);
    }
    let made = tokenize(&set.files, tokenizer, true, prefix, bad_limit, progress)?;
    aside::write_json(&kept, &Kept { key, made: &made })?;
    Ok(made)
}
