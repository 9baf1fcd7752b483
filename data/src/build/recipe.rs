//! The recipe of a corpus: which sets, which steps over them, which tokenizer.
//!
//! ```toml
//! tokenizer = "gpt2"                  # or bpe:SIZE, or the path of a tokenizer.json
//! bad_limit = 1000                    # records that may be unreadable; any number unless given
//!
//! [[set]]                             # in the order of their priority: of duplicates the one in the first set stays
//! name = "books"
//! weight = 0.7                        # of all sets or of none; then they are proportional to tokens
//! inputs = ["raw/books", "raw/more.jsonl.zst"]
//!
//! [[set]]
//! name = "crawl"
//! weight = 0.3
//! inputs = ["raw/crawl"]
//!
//! [extract]                           # the steps run in this order, each if it is there; with `sets` over those alone
//! method = "justext"
//! language = "en"
//! sets = ["crawl"]
//! [filter]
//! positives = ["raw/books"]
//! negatives = ["raw/crawl-sample.jsonl.zst"]
//! sets = ["crawl"]
//! [dedup]
//! [decontaminate]
//! against = { lambada = ["eval/lambada.jsonl"] }
//! [clean]
//! ```
//!
//! Paths are relative to the recipe's folder. `rust-docs:NAME` is a book of the Rust toolchain's documentation.

use super::Built;
use crate::clean::{Clean, CleanConfig};
use crate::decontaminate::{Decontaminate, DecontaminateConfig, Task};
use crate::dedup::{Dedup, DedupConfig};
use crate::extract::{Extract, Method};
use crate::filter::{Filter, FilterConfig};
use crate::input::{Files, Source, SourceKind};
use crate::step::{Set, Step};
use crate::tokenizer::TokenizerSpec;
use crate::{Error, Result, corpus};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What begins the name of a book of the toolchain's documentation.
const RUST_DOCS: &str = "rust-docs:";

/// A recipe that has been read.
#[derive(Default)]
pub struct Recipe {
    /// The sets, in the order of their priority.
    pub sets: Vec<RecipeSet>,
    /// The steps, in order.
    pub stages: Vec<Stage>,
    /// The tokenizer.
    pub tokenizer: TokenizerSpec,
    /// How many records may be unreadable; `None`: any number.
    pub bad_limit: Option<u64>,
}

/// A set of a recipe.
#[derive(Debug, Clone)]
pub struct RecipeSet {
    /// Its name.
    pub name: String,
    /// Its weight in the blend.
    pub weight: Option<f64>,
    /// Where its documents are.
    pub sources: Vec<Source>,
}

/// A step of a recipe.
pub struct Stage {
    /// The step.
    pub step: Box<dyn Step>,
    /// The sets that it treats, in order.
    pub sets: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokenizer: Option<String>,
    bad_limit: Option<u64>,
    set: Vec<FileSet>,
    extract: Option<ExtractSection>,
    filter: Option<FilterSection>,
    dedup: Option<DedupSection>,
    decontaminate: Option<DecontaminateSection>,
    clean: Option<CleanSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSet {
    name: String,
    weight: Option<f64>,
    inputs: Vec<String>,
}

type Chosen = Option<Vec<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtractSection {
    method: Method,
    language: Option<String>,
    sets: Chosen,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterSection {
    positives: Vec<PathBuf>,
    negatives: Vec<PathBuf>,
    alpha: Option<f64>,
    seed: Option<u64>,
    min_chars: Option<usize>,
    max_chars: Option<usize>,
    sets: Chosen,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DedupSection {
    fuzzy: Option<bool>,
    ngram: Option<usize>,
    bands: Option<usize>,
    rows: Option<usize>,
    jaccard: Option<f64>,
    scratch: Option<PathBuf>,
    sets: Chosen,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecontaminateSection {
    against: BTreeMap<String, Vec<PathBuf>>,
    sets: Chosen,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CleanSection {
    min_chars: Option<usize>,
    language: Option<String>,
    foreign_under: Option<usize>,
    sets: Chosen,
}

impl Recipe {
    /// Read a recipe file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Recipe`]; as [`Recipe::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Recipe::parse(&text, path)
    }

    /// Read a recipe; `path` names it, and its folder is where paths begin.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key; those of the steps' own options and of the evaluation sets.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Recipe { path: path.to_owned(), reason };
        let file: File =
            toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let mut sets = Vec::new();
        for set in file.set {
            if sets.iter().any(|before: &RecipeSet| before.name == set.name) {
                return Err(wrong(format!("two sets are named {:?}; names tell them apart", set.name)));
            }
            if let Some(weight) = set.weight.filter(|weight| !(weight.is_finite() && *weight > 0.0)) {
                return Err(wrong(format!(
                    "the weight {weight} of set {:?} is not a positive number",
                    set.name
                )));
            }
            if set.inputs.is_empty() {
                return Err(wrong(format!("set {:?} has no inputs; name files or folders", set.name)));
            }
            let sources = set.inputs.iter().map(|input| input_source(input, base, &set.name)).collect();
            sets.push(RecipeSet { name: set.name, weight: set.weight, sources });
        }
        if sets.is_empty() {
            return Err(wrong("it has no [[set]]".to_owned()));
        }
        let choose = |chosen: Chosen, step: &str| -> Result<Vec<usize>> {
            let Some(names) = chosen else { return Ok((0..sets.len()).collect()) };
            if names.is_empty() {
                return Err(wrong(format!("[{step}] sets is empty; leave it out for all sets")));
            }
            for name in &names {
                if !sets.iter().any(|set| &set.name == name) {
                    let known: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
                    let known = known.join(", ");
                    return Err(wrong(format!("[{step}] sets names {name:?}, which is none of {known}")));
                }
            }
            Ok((0..sets.len()).filter(|&i| names.contains(&sets[i].name)).collect())
        };
        let mut stages: Vec<Stage> = Vec::new();
        if let Some(section) = file.extract {
            let language = section.language.map(|language| language.parse()).transpose()?;
            let step = Box::new(Extract { method: section.method, language });
            stages.push(Stage { step, sets: choose(section.sets, "extract")? });
        }
        if let Some(section) = file.filter {
            let defaults = FilterConfig::default();
            let config = FilterConfig {
                alpha: section.alpha.unwrap_or(defaults.alpha),
                seed: section.seed.unwrap_or(defaults.seed),
                min_chars: section.min_chars.unwrap_or(defaults.min_chars),
                max_chars: section.max_chars.or(defaults.max_chars),
            };
            let open = |paths: &[PathBuf]| Files::of_paths(paths.iter().map(|path| base.join(path)));
            let step = Filter::new(config, open(&section.positives)?, open(&section.negatives)?)?;
            stages.push(Stage { step: Box::new(step), sets: choose(section.sets, "filter")? });
        }
        if let Some(section) = file.dedup {
            let defaults = DedupConfig::default();
            let config = DedupConfig {
                fuzzy: section.fuzzy.unwrap_or(defaults.fuzzy),
                ngram: section.ngram.unwrap_or(defaults.ngram),
                bands: section.bands.unwrap_or(defaults.bands),
                rows: section.rows.unwrap_or(defaults.rows),
                jaccard: section.jaccard.unwrap_or(defaults.jaccard),
            };
            let scratch = section.scratch.map(|folder| base.join(folder));
            stages.push(Stage {
                step: Box::new(Dedup::new(config, scratch)?),
                sets: choose(section.sets, "dedup")?,
            });
        }
        if let Some(section) = file.decontaminate {
            let mut tasks = Vec::new();
            for (name, paths) in section.against {
                let files = Files::of_paths(paths.iter().map(|path| base.join(path)))?;
                tasks.push(Task { name, files, fields: None });
            }
            let step = Decontaminate::new(DecontaminateConfig::default(), &tasks)?;
            stages.push(Stage { step: Box::new(step), sets: choose(section.sets, "decontaminate")? });
        }
        if let Some(section) = file.clean {
            let defaults = CleanConfig::default();
            let config = CleanConfig {
                min_chars: section.min_chars.unwrap_or(defaults.min_chars),
                language: section.language.map_or(Ok(defaults.language), |language| language.parse())?,
                foreign_under: section.foreign_under.unwrap_or(defaults.foreign_under),
            };
            stages.push(Stage { step: Box::new(Clean { config }), sets: choose(section.sets, "clean")? });
        }
        let tokenizer = match file.tokenizer {
            Some(name) => match name.parse()? {
                TokenizerSpec::File(path) => TokenizerSpec::File(base.join(path)),
                other => other,
            },
            None => TokenizerSpec::Gpt2,
        };
        Ok(Recipe { sets, stages, tokenizer, bad_limit: file.bad_limit })
    }

    /// The files of every set.
    ///
    /// # Errors
    /// [`Error::MissingPath`], [`Error::UnknownKind`], [`Error::NoDefaultCorpus`], [`Error::Io`].
    pub fn open(&self) -> Result<Vec<Set>> {
        let mut sets = Vec::new();
        for set in &self.sets {
            let mut files = Files::default();
            for source in &set.sources {
                files.0.extend(resolve(source)?.files()?.0);
            }
            sets.push(Set { name: set.name.clone(), files });
        }
        Ok(sets)
    }
}

/// An input of a recipe: a path, or `rust-docs:NAME`, which is looked up when it is opened.
fn input_source(input: &str, base: &Path, name: &str) -> Source {
    let path = match input.starts_with(RUST_DOCS) {
        true => PathBuf::from(input),
        false => base.join(input),
    };
    Source { name: name.to_owned(), weight: None, kind: SourceKind::File(path) }
}

/// What an input is, now that it must be there.
fn resolve(source: &Source) -> Result<Source> {
    let SourceKind::File(path) = &source.kind else { return Ok(source.clone()) };
    if let Some(book) = path.to_str().and_then(|path| path.strip_prefix(RUST_DOCS)) {
        return corpus::book(book);
    }
    let kind = match SourceKind::detect(path)? {
        SourceKind::Tokens(path) => {
            let (found, expected) = ("tokens".to_owned(), "text: a file or a folder");
            return Err(Error::UnknownKind { path, found, expected });
        }
        kind => kind,
    };
    Ok(Source { kind, ..source.clone() })
}

/// Weights for all sets or none.
pub(super) fn check_weights<'a>(sets: impl IntoIterator<Item = &'a RecipeSet>) -> Result<()> {
    let sets: Vec<&RecipeSet> = sets.into_iter().collect();
    let place = |set: &&RecipeSet| {
        set.sources.first().map_or_else(|| set.name.clone(), |source| source.path().display().to_string())
    };
    let with = sets.iter().find(|set| set.weight.is_some());
    let without = sets.iter().find(|set| set.weight.is_none());
    match (with, without) {
        (Some(with), Some(without)) => {
            Err(Error::MixedWeights { weighted: place(with), unweighted: place(without) })
        }
        _ => Ok(()),
    }
}

/// The `[data]` of a training run over what was built.
pub(super) fn train_toml(recipe: &Recipe, built: &Built) -> String {
    let output = built.output.canonicalize().unwrap_or_else(|_| built.output.clone());
    let quoted = |text: String| toml::Value::String(text).to_string();
    let mut text = "# mtnlg train --config train.toml\n[data]\nsources = [\n".to_owned();
    for (set, record) in recipe.sets.iter().zip(&built.sets) {
        let prefix = output.join(&record.file).display().to_string();
        let source = set.weight.map_or_else(|| prefix.clone(), |weight| format!("{weight}={prefix}"));
        let _ = writeln!(text, "    {},", quoted(source));
    }
    let tokenizer = match &built.tokenizer {
        TokenizerSpec::File(path) => {
            path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string()
        }
        other => other.to_string(),
    };
    let _ = writeln!(text, "]\ntokenizer = {}", quoted(tokenizer));
    text
}
