//! `mtnlg data blend`, `inspect` and `verify`: looking at what is there.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use data::blend::{self, Blend};
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::input::{Source, SourceKind};
use data::inspect;
use data::split::{Part, Split};
use data::tokenizer::{Tokenizer, TokenizerSpec};
use serde::Serialize;

use super::json;
use crate::presets::grouped;
use crate::{Error, Result};

/// Which samples there are.
#[derive(Clone, Debug, Args)]
struct OrderArgs {
    /// Prefixes of .bin/.idx pairs, with their weights if they are blended
    #[arg(required = true, value_name = "[WEIGHT=]PREFIX")]
    prefixes: Vec<String>,
    /// Tokens of a sample's input
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    seq: usize,
    /// Seed of the shuffles
    #[arg(long, default_value_t = 1234)]
    seed: u32,
    /// Shares of train, valid and test
    #[arg(long, default_value = "949,50,1")]
    split: Split,
    /// Which of them: train, valid or test
    #[arg(long, default_value = "train")]
    part: Part,
    /// Samples of the whole run [default: every set once]
    #[arg(long, value_name = "N")]
    num_samples: Option<u64>,
}

impl OrderArgs {
    fn sets(&self) -> Result<Vec<BlendSet>> {
        let mut sets = Vec::new();
        for argument in &self.prefixes {
            let source = Source::parse(argument)?;
            let SourceKind::Tokens(prefix) = source.kind else {
                return Err(Error::user("these are no tokens")
                    .at(source.path().display().to_string())
                    .remedy("give the prefix of a .bin/.idx pair; `mtnlg data tokenize` makes one"));
            };
            sets.push((prefix, source.weight));
        }
        let weighted = sets.iter().filter(|(_, weight)| weight.is_some()).count();
        if weighted != 0 && weighted != sets.len() {
            return Err(Error::user("some sets have a weight and some have none")
                .remedy("give every set a weight, or none (then they are proportional to tokens)"));
        }
        sets.into_iter()
            .map(|(prefix, weight)| {
                let weight = match weight {
                    Some(weight) => weight,
                    None => data::indexed::IndexedDataset::open(&prefix)?.tokens() as f64,
                };
                Ok(BlendSet { prefix, weight })
            })
            .collect()
    }

    fn open(&self, tokenizer: Option<&Tokenizer>) -> Result<BlendedDataset> {
        Ok(BlendedDataset::open(&BlendConfig {
            sets: self.sets()?,
            split: self.split,
            part: self.part,
            sequence: self.seq,
            samples: self.num_samples,
            seed: self.seed,
            vocab_size: tokenizer.map_or(u32::MAX as usize, Tokenizer::vocab_size),
        })?)
    }
}

/// `mtnlg data inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// One sample, with its text and documents
    #[arg(long, value_name = "I", conflicts_with = "samples")]
    sample: Option<u64>,
    /// Samples from and up to, as token rows
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    samples: Option<Range<u64>>,
    /// gpt2, or the path of a tokenizer.json [default: the one beside the pair, else gpt2]
    #[arg(long)]
    tokenizer: Option<TokenizerSpec>,
    /// Print JSON: token rows, or all about the one sample
    #[arg(long)]
    json: bool,
}

fn range(text: &str) -> std::result::Result<Range<u64>, String> {
    let numbers =
        text.split_once("..").and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    numbers
        .filter(|range: &Range<u64>| range.start < range.end)
        .ok_or_else(|| format!("{text:?} is no range of samples; write FROM..TO, for example 0..8"))
}

/// The tokenizer beside a pair, or above it as `build` leaves it.
fn beside(prefix: &Path) -> TokenizerSpec {
    let folders = prefix.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("tokenizer.json"))
        .find(|path| path.is_file())
        .map_or(TokenizerSpec::Gpt2, TokenizerSpec::File)
}

impl InspectArgs {
    /// Gives what it prints.
    pub(super) fn run(&self) -> Result<String> {
        if let Some(range) = &self.samples {
            let tokenizer = self.tokenizer.as_ref().map(TokenizerSpec::load).transpose()?;
            let data = self.order.open(tokenizer.as_ref())?;
            let views = inspect::samples(&data, range.clone(), None)?;
            let rows: Vec<&[u32]> = views.iter().map(|view| &view.tokens[..]).collect();
            if self.json {
                return serde_json::to_string(&rows)
                    .map_err(|error| Error::other(format!("no JSON: {error}")));
            }
            let line = |row: &&[u32]| row.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            return Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        let Some(i) = self.sample else { return self.summary() };
        let spec = match &self.tokenizer {
            Some(spec) => spec.clone(),
            None => beside(&self.order.sets()?[0].prefix),
        };
        let tokenizer = spec.load()?;
        let data = self.order.open(Some(&tokenizer))?;
        let view = inspect::samples(&data, i..i.saturating_add(1), Some(&tokenizer))?.remove(0);
        if self.json {
            return json(&view);
        }
        let mut text = format!(
            "sample {i} of {} ({} part, set {}), {} tokens of {} documents, tokenizer {spec}\n",
            data.len(),
            self.order.part,
            self.order.prefixes[view.set],
            view.tokens.len(),
            view.documents.len()
        );
        for piece in &view.documents {
            let (from, to) = (piece.start, piece.start + piece.tokens);
            text.push_str(&format!("--- document {}, tokens {from}..{to}\n", piece.document));
            text.push_str(piece.text.as_deref().unwrap_or_default());
            text.push('\n');
        }
        Ok(text)
    }

    fn summary(&self) -> Result<String> {
        let data = self.order.open(None)?;
        let mut lines = vec![format!(
            "{} part: {} samples of {} + 1 tokens; --sample I shows one",
            self.order.part,
            grouped(data.len()),
            self.order.seq
        )];
        for (set, epochs) in data.epochs() {
            lines.push(format!("{}: {epochs} epochs", self.order.prefixes[set]));
        }
        Ok(lines.join("\n"))
    }
}

/// `mtnlg data blend`.
#[derive(Clone, Debug, Args)]
pub struct BlendArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Write Megatron's blending indices to PREFIX.dataset_index.npy and PREFIX.dataset_sample_index.npy
    #[arg(long, value_name = "PREFIX")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct BlendRow {
    prefix: PathBuf,
    weight: f64,
    documents: u64,
    tokens: u64,
    samples: u64,
    epochs: u64,
}

impl BlendArgs {
    /// Gives what it prints.
    pub(super) fn run(&self) -> Result<String> {
        let Some(samples) = self.order.num_samples else {
            return Err(Error::user("a blend needs the number of samples").remedy("give --num-samples N"));
        };
        let sets = self.order.sets()?;
        let weights = blend::normalize(&sets.iter().map(|set| set.weight).collect::<Vec<_>>())?;
        let data = self.order.open(None)?;
        let epochs: Vec<(usize, u64)> = data.epochs().collect();
        let mut taken = vec![0u64; sets.len()];
        for i in 0..samples {
            if let Some(set) = data.set_of(i) {
                taken[set] += 1;
            }
        }
        let mut rows = Vec::new();
        for (i, set) in sets.iter().enumerate() {
            let pair = data::indexed::IndexedDataset::open(&set.prefix)?;
            rows.push(BlendRow {
                prefix: set.prefix.clone(),
                weight: weights[i],
                documents: pair.documents(),
                tokens: pair.tokens(),
                samples: taken[i],
                epochs: epochs.iter().find(|(set, _)| *set == i).map_or(0, |(_, epochs)| *epochs),
            });
        }
        if let Some(prefix) = &self.output {
            Blend::weighted(&weights, samples)?.write_npy(prefix)?;
        }
        if self.json {
            return json(&rows);
        }
        let line = |row: &BlendRow| {
            format!(
                "{}: {:.4} of the blend, {} samples, {} epochs of {} documents, {} tokens",
                row.prefix.display(),
                row.weight,
                grouped(row.samples),
                row.epochs,
                grouped(row.documents),
                grouped(row.tokens)
            )
        };
        Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// `mtnlg data verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Prefixes of .bin/.idx pairs, or folders of steps
    #[arg(required = true, value_name = "PREFIX|DIR")]
    paths: Vec<PathBuf>,
    /// The tokenizer that made the pairs: tokens are checked against its vocabulary
    #[arg(long)]
    tokenizer: Option<TokenizerSpec>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    /// Gives what it prints.
    pub(super) fn run(&self) -> Result<String> {
        let tokenizer = self.tokenizer.as_ref().map(TokenizerSpec::load).transpose()?;
        let mut lines = Vec::new();
        let mut facts = Vec::new();
        for path in &self.paths {
            if path.join("manifest.json").is_file() {
                let parts = data::step::verify(path)?;
                lines.push(format!("{}: sound, {} parts", path.display(), grouped(parts)));
                facts.push(serde_json::json!({"path": path, "parts": parts}));
                continue;
            }
            let SourceKind::Tokens(prefix) = SourceKind::detect(path)? else {
                return Err(Error::user("this is neither a .bin/.idx pair nor the output of a step")
                    .at(path.display().to_string())
                    .remedy("give the prefix of a pair, or a folder with a manifest.json"));
            };
            let pair = inspect::verify(&prefix, tokenizer.as_ref())?;
            let mut line = format!(
                "{}: sound, {} documents, {} tokens of {} bytes",
                prefix.display(),
                grouped(pair.documents),
                grouped(pair.tokens),
                pair.token_bytes
            );
            if let Some(without) = pair.without_end.filter(|&without| without > 0) {
                line.push_str(&format!(", {} without an end-of-document token", grouped(without)));
            }
            lines.push(line);
            facts.push(serde_json::json!({"path": prefix, "pair": pair}));
        }
        if self.json { json(&facts) } else { Ok(lines.join("\n")) }
    }
}
