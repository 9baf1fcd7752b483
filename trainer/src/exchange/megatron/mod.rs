//! A GPT of Megatron-LM's torch checkpoints: `mp_rank_XX/model_optim_rng.pt`, one file a tensor rank and pipeline stage.
//!
//! Every rank's file is opened and its tensors are found before one is read. What comes of it is the model alone: optimizer state and random number generators
//! stay where they are.

mod args;
mod folder;
mod names;
mod shards;

use std::fmt::Write;
use std::path::Path;

use model::GptConfig;
use serde::Serialize;

pub use folder::Folder;

use super::import::Foreign;
use super::torch_file::Element;
use crate::{Error, Result};
use args::Args;
use names::{Cut, EMBEDDING, Entry, HEAD, entries};
use shards::{Part, Shards};

/// A checkpoint, all of whose tensors have been found.
#[derive(Debug)]
pub struct Megatron {
    source: String,
    shards: Shards,
    model: GptConfig,
    tokens: usize,
    groups: Vec<Vec<Entry>>,
}

impl Megatron {
    /// Opens a checkpoint and finds its tensors. Its vocabulary is all of the embedding until [`tokens`](Self::set_tokens) are known.
    ///
    /// # Errors
    /// A rank's file is missing, damaged or of another model; the model is none of ours.
    pub fn open(folder: &Folder) -> Result<Self> {
        let shards = Shards::open(folder)?;
        let mut all = Self {
            source: folder.dir.display().to_string(),
            model: GptConfig { vocab: shards.args.padded_vocab, ..shards.args.model(1) },
            tokens: shards.args.padded_vocab,
            shards,
            groups: Vec::new(),
        };
        all.model.validate(1).map_err(|error| Error::user(error.to_string()).at(all.source.clone()))?;
        all.groups = entries(&all.model);
        all.hold()?;
        Ok(all)
    }

    /// Holds the tensors' names and shapes against the model's.
    fn hold(&self) -> Result<()> {
        let Args { tensor, padded_vocab, pipeline, .. } = self.shards.args;
        let embedding = &self.groups[0][0];
        let head = Entry { theirs: HEAD.to_owned(), ..embedding.clone() };
        let tied = pipeline > 1 || self.shards.has(HEAD);
        for entry in self.groups.iter().flatten().chain(tied.then_some(&head)) {
            let shape = entry.part_shape(tensor, padded_vocab);
            for part in self.shards.parts(&entry.theirs)? {
                if part.tensor.shape != shape {
                    return Err(Error::user(format!(
                        "{} has shape {:?}, and the checkpoint's args make it {shape:?}",
                        entry.theirs, part.tensor.shape
                    ))
                    .at(self.shards.path(part).display().to_string())
                    .remedy("check the checkpoint's args against its weights"));
                }
            }
        }
        let known =
            |name: &str| name == HEAD || self.groups.iter().flatten().any(|entry| entry.theirs == name);
        match self.shards.names().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                Err(Error::user(format!("{name} is no tensor of a GPT of {} layers", self.model.layers))
                    .at(self.source.clone())
                    .remedy(
                        "choose a GPT with learned positions, LayerNorms with biases and tied embeddings",
                    ))
            }
        }
    }

    /// How many rows of the embedding are tokens, for a tokenizer of `of_tokenizer`; the others are dropped.
    ///
    /// # Errors
    /// The checkpoint was written with a tokenizer of another size.
    pub fn set_tokens(&mut self, of_tokenizer: usize, tokenizer: &str) -> Result<()> {
        let Args { padded_vocab, divisible, tensor, vocab, .. } = self.shards.args;
        let tokens = vocab.unwrap_or(of_tokenizer);
        let padded = tokens.checked_next_multiple_of(divisible * tensor);
        if of_tokenizer > tokens || tokens > padded_vocab || (vocab.is_none() && padded != Some(padded_vocab))
        {
            let theirs = match vocab {
                Some(vocab) => format!("vocab_size = {vocab}, padded to {padded_vocab}"),
                None => format!("padded_vocab_size = {padded_vocab}, in steps of {divisible} x {tensor}"),
            };
            return Err(Error::user(format!(
                "the tokenizer {tokenizer} has {of_tokenizer} tokens, and the checkpoint has {theirs}"
            ))
            .at(self.source.clone())
            .remedy("give the model's own tokenizer with --tokenizer"));
        }
        self.tokens = tokens;
        self.model = self.shards.args.model(tokens);
        self.groups = entries(&self.model);
        Ok(())
    }

    /// Whether a tokenizer of so many tokens may be the one that it was trained with, by name and size.
    pub fn is_bpe_of(&self, tokens: usize) -> bool {
        let Args { padded_vocab, divisible, tensor, tokenizer, .. } = &self.shards.args;
        tokens.next_multiple_of(divisible * tensor) == *padded_vocab
            && tokenizer.as_ref().is_none_or(|name| name == "GPT2BPETokenizer")
    }

    /// A tensor of all ranks, each rank's part on its own. What ranks share must be alike.
    fn read_parts(&self, entry: &Entry) -> Result<Vec<Vec<f32>>> {
        let parts = self.shards.parts(&entry.theirs)?;
        let values: Vec<_> = parts.iter().map(|part| self.shards.read(part)).collect::<Result<_>>()?;
        if entry.cut == Cut::Whole {
            for (part, other) in parts.iter().zip(&values).skip(1) {
                self.alike(&entry.theirs, (&parts[0], &values[0]), (part, other))?;
            }
        }
        Ok(values)
    }

    fn alike(&self, name: &str, first: (&Part, &[f32]), second: (&Part, &[f32])) -> Result<()> {
        match first.1.iter().zip(second.1).position(|(a, b)| a.to_bits() != b.to_bits()) {
            None => Ok(()),
            Some(at) => Err(Error::user(format!(
                "{name} must be the same in two files, and element {at} is {} in one and {} in the other",
                first.1[at], second.1[at]
            ))
            .at(format!("{}, {}", self.shards.path(first.0).display(), self.shards.path(second.0).display()))
            .remedy("check that all files are of one checkpoint")),
        }
    }

    /// Type of the weights; the widest, if they have several.
    fn element(&self) -> Element {
        let mut all = self.shards.elements();
        let first = all.next().unwrap_or(Element::F32);
        all.fold(first, |widest, element| if element == widest { widest } else { Element::F32 })
    }

    /// What the checkpoint is of, with its tensors, whole.
    ///
    /// # Errors
    /// None, but for JSON's.
    pub fn inspect(&self, as_json: bool) -> Result<String> {
        let Args { tensor, pipeline, padded_vocab, .. } = self.shards.args;
        let listing = Listing {
            path: &self.source,
            iteration: self.shards.iteration,
            checkpoint_version: self.shards.version,
            tensor_parallel: tensor,
            pipeline_parallel: pipeline,
            dtype: self.element().name(),
            padded_vocab,
            model: &self.model,
            parameters: self.model.parameters(),
            tensors: self
                .groups
                .iter()
                .flatten()
                .map(|entry| (entry.theirs.as_str(), &entry.shape[..]))
                .collect(),
        };
        if as_json {
            return serde_json::to_string_pretty(&listing).map_err(|e| Error::other(format!("no JSON: {e}")));
        }
        let model = &self.model;
        let mut text = format!("{}\n  Megatron-LM: {}\n", self.source, self.origin());
        let _ = writeln!(
            text,
            "  model: {} parameters, {} layers, hidden {}, {} heads, FFN {}, {} positions, vocabulary {padded_vocab}, {}",
            listing.parameters,
            model.layers,
            model.hidden,
            model.heads,
            model.ffn_hidden,
            model.seq_len,
            listing.dtype,
        );
        for (name, shape) in listing.tensors {
            let _ = writeln!(text, "  {name:<56} {shape:?}");
        }
        Ok(text)
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    path: &'a str,
    iteration: Option<i64>,
    checkpoint_version: f64,
    tensor_parallel: usize,
    pipeline_parallel: usize,
    dtype: &'static str,
    padded_vocab: usize,
    model: &'a GptConfig,
    parameters: u64,
    tensors: Vec<(&'a str, &'a [usize])>,
}

impl Foreign for Megatron {
    fn model(&self) -> &GptConfig {
        &self.model
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn sizes_from(&self) -> &'static str {
        "args"
    }

    fn origin(&self) -> String {
        let Args { tensor, pipeline, .. } = self.shards.args;
        let iteration =
            self.shards.iteration.map_or_else(|| "a release".into(), |i| format!("iteration {i}"));
        format!(
            "{iteration} of {tensor} x {pipeline} (tensor x pipeline) ranks, version {}",
            self.shards.version
        )
    }

    fn left_out(&self) -> Option<String> {
        let copies = match self.element() {
            Element::F32 => String::new(),
            narrow => format!(" (the weights are the model's, in {})", narrow.name()),
        };
        Some(format!(
            "not imported: optimizer state{copies}, random number generators, the place in the data"
        ))
    }

    fn groups(&self) -> Vec<Vec<(&str, &[usize])>> {
        let groups = self.groups.iter();
        groups.map(|group| group.iter().map(|e| (e.ours.as_str(), &e.shape[..])).collect()).collect()
    }

    fn check(&self) -> Result<()> {
        self.shards.check()?;
        if !self.shards.has(HEAD) {
            return Ok(());
        }
        let pairs = self.shards.parts(EMBEDDING)?.iter().zip(self.shards.parts(HEAD)?);
        for (embedding, head) in pairs {
            let (a, b) = (self.shards.read(embedding)?, self.shards.read(head)?);
            self.alike(
                "the embedding, which the last stage has for its logits,",
                (embedding, &a),
                (head, &b),
            )?;
        }
        Ok(())
    }

    fn read(&self, group: usize, index: usize) -> Result<Vec<f32>> {
        let entry = &self.groups[group][index];
        let parts = self.read_parts(entry)?;
        Ok(entry.join(&parts, self.shards.version, self.model.heads, self.tokens))
    }
}

/// The checkpoint in a folder, if it is one of Megatron-LM's.
///
/// # Errors
/// It is one, and cannot be read.
pub fn find(source: &Path) -> Result<Option<Megatron>> {
    Folder::find(source)?.map(|folder| Megatron::open(&folder)).transpose()
}

#[cfg(test)]
mod tests;
