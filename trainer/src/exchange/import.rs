//! A model of another program as a run that has not made a step.

use std::path::Path;

use data::tokenizer::Tokenizer;
use model::{GptConfig, Slice};

use super::gpt2_weights::Gpt2Weights;
use super::{megatron, whole_directory};
use crate::checkpoint::{Meta, ShardTensor, TokenizerId, Writer};
use crate::config::{self, Layers, RunConfig};
use crate::run::{CONFIG_FILE, TOKENIZER_FILE};
use crate::{Error, Result, metrics};

/// GPT-2's own tokenizer, in transformers' sizes.
const GPT2_TOKENS: usize = 50_257;

/// A model that another program has written, and what is said of it.
pub trait Foreign {
    /// Our shape of it.
    fn model(&self) -> &GptConfig;
    /// Rows of the embedding that are tokens.
    fn tokens(&self) -> usize;
    /// Where its sizes are from, in a word.
    fn sizes_from(&self) -> &'static str;
    /// What wrote it, in words.
    fn origin(&self) -> String;
    /// What of it is not imported, in words.
    fn left_out(&self) -> Option<String>;
    /// Every parameter by our name and shape, in groups that are read and written together.
    fn groups(&self) -> Vec<Vec<(&str, &[usize])>>;
    /// Holds the weights against what is said of them.
    ///
    /// # Errors
    /// They are damaged, or not those of a model of ours.
    fn check(&self) -> Result<()>;
    /// The values of one parameter of a group, row-major.
    ///
    /// # Errors
    /// Of the file system; they are not what they should be.
    fn read(&self, group: usize, index: usize) -> Result<Vec<f32>>;
}

/// Imports; returns what to tell the user.
pub fn import(source: &Path, output: &Path, tokenizer: Option<&config::Tokenizer>) -> Result<String> {
    if let Some(mut theirs) = megatron::find(source)? {
        let choice = choose(source, theirs.is_bpe_of(GPT2_TOKENS), tokenizer)?;
        theirs.set_tokens(choice.tokens, &choice.name.to_string())?;
        return write(&theirs, source, output, &choice);
    }
    if !source.join("config.json").is_file() {
        return Err(Error::user("there is no config.json, and no checkpoint of Megatron-LM either")
            .at(source.display().to_string())
            .remedy(
                "give a directory with a Hugging Face GPT-2 (config.json, model.safetensors and tokenizer.json) or with \
                 Megatron-LM's latest_checkpointed_iteration.txt or mp_rank_00",
            ));
    }
    let theirs = Gpt2Weights::open(source)?;
    let choice = choose(source, theirs.tokens() == GPT2_TOKENS, tokenizer)?;
    if choice.tokens > theirs.tokens() {
        return Err(Error::user(format!(
            "the tokenizer {} has {} tokens, and the model a vocabulary of {}",
            choice.name,
            choice.tokens,
            theirs.tokens()
        ))
        .remedy("give the model's own tokenizer with --tokenizer"));
    }
    write(&theirs, source, output, &choice)
}

/// Writes a run; returns what to tell the user.
fn write(theirs: &dyn Foreign, source: &Path, output: &Path, tokenizer: &Choice) -> Result<String> {
    let (model, tokens) = (theirs.model(), theirs.tokens());
    whole_directory(output, |dir| {
        theirs.check()?;
        let writer = Writer::begin(dir, 0)?;
        for (index, group) in theirs.groups().iter().enumerate() {
            let values = (0..group.len()).map(|i| theirs.read(index, i)).collect::<Result<Vec<_>>>()?;
            let slices: Vec<_> = group.iter().map(|(_, shape)| Slice::whole(shape)).collect();
            let tensors: Vec<_> = group
                .iter()
                .zip(slices.iter().zip(&values))
                .map(|((name, _), (slice, values))| ShardTensor { name, slice, values })
                .collect();
            writer.write_shard(index, &tensors)?;
        }
        let hash = match &tokenizer.json {
            Some(json) => blake3::hash(json),
            None => blake3::hash(b"gpt2"),
        };
        // The file is the run's own from here on.
        let name = match &tokenizer.json {
            Some(_) => output.join(TOKENIZER_FILE).display().to_string(),
            None => tokenizer.name.to_string(),
        };
        let blake3 = hash.to_hex().to_string();
        writer.finish(
            Meta {
                model: model.clone(),
                samples_consumed: 0,
                updates: 0,
                scheduled_tokens: 0,
                loss_scale: None,
                seed: 0,
                tokenizer: TokenizerId { name: name.clone(), blake3, tokens },
                data: vec![],
                layout: format!("imported from {}, {}", source.display(), theirs.origin()),
            },
            1,
        )?;
        if let Some(json) = &tokenizer.json {
            metrics::replace(&dir.join(TOKENIZER_FILE), json)?;
        }
        let config = config_of(theirs, &name, output)?;
        metrics::replace(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())
    })?;
    let left_out = theirs.left_out().map_or_else(String::new, |words| words + "\n");
    Ok(format!(
        "imported {} parameters: {} layers, hidden {}, {} heads, {} positions, {tokens} tokens (padded to {}), tokenizer {}\n\
         from: {}\n{left_out}checkpoint: {}",
        model.parameters(),
        model.layers,
        model.hidden,
        model.heads,
        model.seq_len,
        model.vocab,
        tokenizer.name,
        theirs.origin(),
        output.display()
    ))
}

/// The run's configuration, on one rank.
fn config_of(theirs: &dyn Foreign, tokenizer: &str, output: &Path) -> Result<RunConfig> {
    let (model, place) = (theirs.model(), theirs.sizes_from());
    let mut layers = Layers::default();
    for (key, value) in [
        ("model.layers", model.layers),
        ("model.hidden", model.hidden),
        ("model.heads", model.heads),
        ("model.seq_len", model.seq_len),
        ("model.ffn_hidden", model.ffn_hidden),
        ("train.seq_len", model.seq_len),
    ] {
        layers = layers.assign(key, value as i64, place);
    }
    layers = layers.assign("data.tokenizer", tokenizer, place);
    layers = layers.assign("model.vocab", model.vocab as i64, place);
    for (key, value) in [
        ("model.dropout", model.dropout),
        ("model.init_std", model.init_std),
        ("model.layernorm_eps", model.layernorm_eps),
    ] {
        layers = layers.assign(key, shortest(value), place);
    }
    for (key, value) in [("parallel.tensor", 1i64), ("parallel.pipeline", 1), ("parallel.data", 1)] {
        layers = layers.assign(key, value, "import");
    }
    let text = output
        .to_str()
        .ok_or_else(|| Error::user("a path that is not UTF-8").at(output.display().to_string()))?;
    RunConfig::resolve(&layers.assign("run.dir", text, "--output"))
}

/// The f64 that prints like the f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// A tokenizer.
struct Choice {
    name: config::Tokenizer,
    tokens: usize,
    /// Its file's contents unless it is GPT-2's.
    json: Option<Vec<u8>>,
}

/// The tokenizer that was asked for, or that lies beside the model, or GPT-2's where that fits.
fn choose(source: &Path, gpt2_fits: bool, asked: Option<&config::Tokenizer>) -> Result<Choice> {
    let beside = source.join(TOKENIZER_FILE);
    let name = match asked {
        Some(config::Tokenizer::Bpe(_)) => {
            return Err(Error::user(
                "a tokenizer that is trained on a corpus does not fit a model that is trained already",
            )
            .at("--tokenizer")
            .remedy("give gpt2, or the path of a tokenizer.json"));
        }
        Some(choice) => choice.clone(),
        None if beside.is_file() => config::Tokenizer::File(beside),
        None if gpt2_fits => config::Tokenizer::Gpt2,
        None => {
            return Err(Error::user(format!("there is no {TOKENIZER_FILE}"))
                .at(source.display().to_string())
                .remedy("give --tokenizer gpt2 or the path of one"));
        }
    };
    let (tokens, json) = match &name {
        config::Tokenizer::File(path) => {
            let json = std::fs::read(path).map_err(|e| Error::io("read the tokenizer", path, &e))?;
            (Tokenizer::from_json(&json, &path.display().to_string())?.vocab_size(), Some(json))
        }
        _ => (GPT2_TOKENS, None),
    };
    Ok(Choice { name, tokens, json })
}
