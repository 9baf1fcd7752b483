//! A run's text: prepared, opened for training and validation, and told to the user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::build::{Corpus, Prepared, Request, prepare};
use data::corpus::Fallback;
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::input::Source;
use data::split::Part;
use data::tokenizer::{Tokenizer, TokenizerSpec};

use crate::checkpoint::TokenizerId;
use crate::config::{self, RunConfig};
use crate::engine::Samples;
use crate::{Error, Result};

/// The name of a tokenizer in a run directory; GPT-2's is inside the program.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a run reads.
pub struct Text {
    /// The sets as prepared.
    pub prepared: Prepared,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What it is trained on.
    pub train: BlendedDataset,
    /// What it is validated on: the same samples each time.
    pub valid: BlendedDataset,
}

impl Samples for BlendedDataset {
    fn read(&self, index: u64, out: &mut [u32]) -> Result<(), String> {
        let sample = self.sample(index).map_err(|error| error.to_string())?;
        out.copy_from_slice(&sample);
        Ok(())
    }
}

impl From<data::Error> for Error {
    fn from(error: data::Error) -> Self {
        match error.is_user() {
            true => Self::user(error.to_string()),
            false => Self::other(error.to_string()),
        }
    }
}

impl Text {
    /// Prepares what the configuration names, or finds it prepared, and opens it. `say` takes lines for the user.
    ///
    /// # Errors
    /// The user's mistakes in the data; a tokenizer with more tokens than the model.
    pub fn open(config: &RunConfig, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let request = Request {
            corpus: match &config.data.sources[..] {
                [] => Corpus::Default(repository_text()),
                sources => {
                    let parse = |source: &config::DataSource| Source::parse(&source.to_string());
                    Corpus::Sources(sources.iter().map(parse).collect::<data::Result<_>>()?)
                }
            },
            tokenizer: match &config.data.tokenizer {
                config::Tokenizer::Bpe(vocab_size) => TokenizerSpec::Train { vocab_size: *vocab_size },
                config::Tokenizer::Gpt2 => TokenizerSpec::Gpt2,
                config::Tokenizer::File(path) => TokenizerSpec::File(path.clone()),
            },
            cache: cache_dir(),
        };
        let mut step = String::new();
        let prepared = prepare(&request, &mut |progress| {
            // A line for each step, not for each set that it treats.
            let word = progress.doing.split([' ', ':']).next().unwrap_or_default();
            if word != step {
                let alone = matches!(word, "looking" | "training");
                say(&format!("data: {}", if alone { &progress.doing } else { word }));
                step = word.to_owned();
            }
        })?;
        for notice in &prepared.notices {
            say(&format!("note: {notice}"));
        }
        let tokenizer = prepared.tokenizer.load()?;
        if tokenizer.vocab_size() > config.model.vocab {
            return Err(Error::user(format!(
                "the tokenizer has {} tokens, but the model has room for model.vocab = {}",
                tokenizer.vocab_size(),
                config.model.vocab
            ))
            .remedy(format!(
                "set model.vocab to {}",
                model::GptConfig::padded_vocab(tokenizer.vocab_size(), config.parallel.tensor)
            )));
        }
        let train = &config.train;
        let split = config.data.split;
        let open = |part, samples: u64| {
            BlendedDataset::open(&BlendConfig {
                sets: prepared
                    .sets
                    .iter()
                    .map(|set| BlendSet { prefix: set.prefix.clone(), weight: set.weight })
                    .collect(),
                split: data::split::Split::new([split.train, split.valid, split.test])?,
                part,
                sequence: train.seq_len,
                samples: Some(samples),
                seed: train.seed as u32,
                vocab_size: config.model.vocab,
            })
        };
        let samples = config.batch().samples_after(train.steps);
        let held_out = train.valid_batches * train.global_batch as u64;
        let (train, valid) = (open(Part::Train, samples)?, open(Part::Valid, held_out)?);
        Ok(Self { train, valid, tokenizer, prepared })
    }

    /// One line: the sets with their sizes.
    pub fn describe(&self) -> String {
        let sets = self.prepared.sets.iter().map(|set| {
            format!(
                "{} {:.1}% ({} documents, {:.2} M tokens)",
                set.name,
                100.0 * set.weight,
                set.documents,
                set.tokens as f64 / 1e6
            )
        });
        format!("data: {}", sets.collect::<Vec<_>>().join(", "))
    }

    /// Puts the tokenizer's file, if it has one, into the run directory: what comes of the run is read with it, wherever it is taken.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn keep_tokenizer(&self, run_dir: &Path) -> Result<()> {
        let TokenizerSpec::File(path) = &self.prepared.tokenizer else { return Ok(()) };
        let json = std::fs::read(path).map_err(|e| Error::io("read the tokenizer", path, &e))?;
        crate::metrics::replace(&run_dir.join(TOKENIZER_FILE), &json)
    }

    /// Which tokenizer made the tokens, for checkpoints.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn tokenizer_id(&self, config: &RunConfig) -> Result<TokenizerId> {
        let hash = match &self.prepared.tokenizer {
            TokenizerSpec::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| Error::io("read the tokenizer", path, &e))?;
                blake3::hash(&bytes)
            }
            other => blake3::hash(other.to_string().as_bytes()),
        };
        let name = config.data.tokenizer.to_string();
        Ok(TokenizerId { name, blake3: hash.to_hex().to_string(), tokens: self.tokenizer.vocab_size() })
    }

    /// The sets, each in words that tell it from others, for checkpoints.
    pub fn identities(&self) -> Vec<String> {
        let sets = self.prepared.sets.iter();
        sets.map(|set| {
            format!("{} weight {} documents {} tokens {}", set.name, set.weight, set.documents, set.tokens)
        })
        .collect()
    }

    /// Bytes of text that the targets of the validation stand for.
    ///
    /// # Errors
    /// A sample cannot be read.
    pub fn validation_bytes(&self) -> Result<u64> {
        let bytes = |i| Ok(self.tokenizer.byte_len(&self.valid.sample(i)?[1..]));
        (0..self.valid.len()).map(bytes).sum()
    }
}

/// Where prepared data is kept between runs: `MTNLG_CACHE`, else the user's cache folder.
pub fn cache_dir() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("MTNLG_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").or_else(|| named("LOCALAPPDATA")).map(|dir| dir.join("mtnlg")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("mtnlg")))
        .unwrap_or_else(|| std::env::temp_dir().join("mtnlg-cache"))
}

/// The text of the checkout that this program was built from: what stands in for the toolchain's documentation where that is missing.
fn repository_text() -> Fallback {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    let folders =
        ["backend", "backend-cpu", "backend-wgpu", "data", "docs", "model", "shaders", "tests", "trainer"];
    folders.iter().for_each(|folder| collect(&root.join(folder), &mut files));
    files.push(root.join("README.md"));
    files.sort();
    let documents: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    match documents.is_empty() {
        true => Fallback::None,
        false => Fallback::Documents(Arc::from(documents)),
    }
}

/// The source and documentation files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            collect(&path, files);
        } else if ["rs", "md", "wgsl"].contains(&extension) {
            files.push(path);
        }
    }
}
