//! A Hugging Face GPT-2 in its directory, to be imported.

use std::collections::BTreeSet;
use std::path::Path;

use model::GptConfig;

use super::gpt2::{Entry, Gpt2Config, entries};
use super::import::Foreign;
use super::safetensors_dir::SafetensorsDir;
use crate::{Error, Result};

/// Its config and weights.
#[derive(Debug)]
pub struct Gpt2Weights {
    config: Gpt2Config,
    model: GptConfig,
    weights: SafetensorsDir,
    /// What names begin with, in files of the class with a head.
    prefix: &'static str,
    groups: Vec<Vec<Entry>>,
}

/// Tensors that are no parameters: the masks that older files hold, and the logits' matrix, which is the embedding.
fn is_no_parameter(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight"
}

impl Gpt2Weights {
    /// Reads the config and the weights' headers.
    ///
    /// # Errors
    /// A damaged file; a model that is none of ours; a tensor that the config does not know.
    pub fn open(source: &Path) -> Result<Self> {
        let config = Gpt2Config::read(&source.join("config.json"))?;
        let model = config.model();
        model.validate(1).map_err(|error| Error::user(error.to_string()).at(source.display().to_string()))?;
        let weights = SafetensorsDir::open(source)?;
        let prefix = if weights.shape("transformer.wte.weight").is_some() { "transformer." } else { "" };
        let groups = entries(&model);
        let known: BTreeSet<String> =
            groups.iter().flatten().map(|entry| format!("{prefix}{}", entry.theirs)).collect();
        if let Some(name) = weights.names().find(|name| !known.contains(*name) && !is_no_parameter(name)) {
            return Err(Error::user(format!("{name} is no tensor of a GPT-2 of {} layers", model.layers))
                .at(source.display().to_string())
                .remedy("check config.json against the weights"));
        }
        Ok(Self { config, model, weights, prefix, groups })
    }
}

impl Foreign for Gpt2Weights {
    fn model(&self) -> &GptConfig {
        &self.model
    }

    fn tokens(&self) -> usize {
        self.config.vocab_size
    }

    fn sizes_from(&self) -> &'static str {
        "config.json"
    }

    fn origin(&self) -> String {
        "a GPT-2 of Hugging Face's transformers".into()
    }

    fn left_out(&self) -> Option<String> {
        None
    }

    fn groups(&self) -> Vec<Vec<(&str, &[usize])>> {
        let groups = self.groups.iter();
        groups.map(|group| group.iter().map(|e| (e.ours.as_str(), &e.shape[..])).collect()).collect()
    }

    /// An `lm_head.weight` that is there must be the embedding.
    fn check(&self) -> Result<()> {
        let shape = [self.config.vocab_size, self.config.n_embd];
        if self.weights.shape("lm_head.weight").is_none() {
            return Ok(());
        }
        let head = self.weights.read("lm_head.weight", &shape)?;
        let embedding = self.weights.read(&format!("{}wte.weight", self.prefix), &shape)?;
        let same = head.iter().zip(&embedding).all(|(a, b)| a.to_bits() == b.to_bits());
        match same {
            true => Ok(()),
            false => Err(Error::user("lm_head.weight is not the embedding, and the model here ties them")
                .remedy("choose a model with tied embeddings")),
        }
    }

    fn read(&self, group: usize, index: usize) -> Result<Vec<f32>> {
        let entry = &self.groups[group][index];
        let name = format!("{}{}", self.prefix, entry.theirs);
        let theirs = self.weights.read(&name, &entry.their_shape(self.config.vocab_size))?;
        Ok(entry.to_ours(&theirs, self.model.heads))
    }
}
