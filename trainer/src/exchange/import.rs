//! A Hugging Face GPT-2 as a run that has not made a step.

use std::path::Path;

use data::tokenizer::Tokenizer;
use model::Slice;

use super::gpt2::{Gpt2Config, entries};
use super::safetensors_dir::SafetensorsDir;
use super::whole_directory;
use crate::checkpoint::{Meta, ShardTensor, TokenizerId, Writer};
use crate::config::{self, Layers, RunConfig};
use crate::run::{CONFIG_FILE, TOKENIZER_FILE};
use crate::{Error, Result, metrics};

/// GPT-2's own tokenizer, in transformers' sizes.
const GPT2_TOKENS: usize = 50_257;

/// Tensors that are no parameters: the masks that older files hold, and the logits' matrix, which is the embedding.
fn is_no_parameter(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight"
}

/// Imports; returns what to tell the user.
pub fn import(source: &Path, output: &Path, tokenizer: Option<&config::Tokenizer>) -> Result<String> {
    if !source.join("config.json").is_file() {
        return Err(Error::user("there is no config.json").at(source.display().to_string()).remedy(
            "give a directory with a Hugging Face GPT-2: config.json, model.safetensors and tokenizer.json",
        ));
    }
    let theirs = Gpt2Config::read(&source.join("config.json"))?;
    let model = theirs.model();
    model.validate(1).map_err(|error| Error::user(error.to_string()).at(source.display().to_string()))?;
    let weights = SafetensorsDir::open(source)?;
    let prefix = if weights.shape("transformer.wte.weight").is_some() { "transformer." } else { "" };
    let (tokenizer, json) = tokenizer_of(source, &theirs, tokenizer)?;

    let groups = entries(&model);
    let known: std::collections::BTreeSet<String> =
        groups.iter().flatten().map(|entry| format!("{prefix}{}", entry.theirs)).collect();
    if let Some(name) = weights.names().find(|name| !known.contains(*name) && !is_no_parameter(name)) {
        return Err(Error::user(format!("{name} is no tensor of a GPT-2 of {} layers", model.layers))
            .at(source.display().to_string())
            .remedy("check config.json against the weights"));
    }
    untied(&weights, prefix, &theirs)?;

    whole_directory(output, |dir| {
        let writer = Writer::begin(dir, 0)?;
        for (index, group) in groups.iter().enumerate() {
            let mut values = Vec::with_capacity(group.len());
            for entry in group {
                let name = format!("{prefix}{}", entry.theirs);
                let theirs = weights.read(&name, &entry.their_shape(theirs.vocab_size))?;
                values.push((Slice::whole(&entry.shape), entry.to_ours(&theirs, model.heads)));
            }
            let tensor = |(entry, (slice, values))| {
                let entry: &super::gpt2::Entry = entry;
                ShardTensor { name: &entry.ours, slice, values }
            };
            let tensors: Vec<_> =
                group.iter().zip(values.iter().map(|(slice, v)| (slice, &v[..]))).map(tensor).collect();
            writer.write_shard(index, &tensors)?;
        }
        let hash = match &json {
            Some(json) => blake3::hash(json),
            None => blake3::hash(b"gpt2"),
        };
        // The file is the run's own from here on.
        let name = match &json {
            Some(_) => output.join(TOKENIZER_FILE).display().to_string(),
            None => tokenizer.to_string(),
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
                tokenizer: TokenizerId { name: name.clone(), blake3, tokens: theirs.vocab_size },
                data: vec![],
                layout: format!("imported from {}", source.display()),
            },
            1,
        )?;
        if let Some(json) = &json {
            metrics::replace(&dir.join(TOKENIZER_FILE), json)?;
        }
        let mut layers = Layers::default();
        for (key, value) in [
            ("model.layers", model.layers),
            ("model.hidden", model.hidden),
            ("model.heads", model.heads),
            ("model.seq_len", model.seq_len),
            ("model.ffn_hidden", model.ffn_hidden),
            ("train.seq_len", model.seq_len),
        ] {
            layers = layers.assign(key, value as i64, "config.json");
        }
        layers = layers.assign("data.tokenizer", name.as_str(), "config.json");
        layers = layers.assign("model.vocab", model.vocab as i64, "config.json");
        for (key, value) in [
            ("model.dropout", model.dropout),
            ("model.init_std", model.init_std),
            ("model.layernorm_eps", model.layernorm_eps),
        ] {
            layers = layers.assign(key, shortest(value), "config.json");
        }
        for (key, value) in [("parallel.tensor", 1i64), ("parallel.pipeline", 1), ("parallel.data", 1)] {
            layers = layers.assign(key, value, "import");
        }
        let text = output
            .to_str()
            .ok_or_else(|| Error::user("a path that is not UTF-8").at(output.display().to_string()))?;
        let config = RunConfig::resolve(&layers.assign("run.dir", text, "--output"))?;
        metrics::replace(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())
    })?;
    Ok(format!(
        "imported {} parameters: {} layers, hidden {}, {} heads, {} positions, {} tokens (padded to {}), tokenizer {tokenizer}\n\
         checkpoint: {}",
        model.parameters(),
        model.layers,
        model.hidden,
        model.heads,
        model.seq_len,
        theirs.vocab_size,
        model.vocab,
        output.display()
    ))
}

/// The f64 that prints like the f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// An `lm_head.weight` that is there must be the embedding.
fn untied(weights: &SafetensorsDir, prefix: &str, config: &Gpt2Config) -> Result<()> {
    let shape = [config.vocab_size, config.n_embd];
    if weights.shape("lm_head.weight").is_none() {
        return Ok(());
    }
    let head = weights.read("lm_head.weight", &shape)?;
    let embedding = weights.read(&format!("{prefix}wte.weight"), &shape)?;
    let same = head.iter().zip(&embedding).all(|(a, b)| a.to_bits() == b.to_bits());
    match same {
        true => Ok(()),
        false => Err(Error::user("lm_head.weight is not the embedding, and the model here ties them")
            .remedy("choose a model with tied embeddings")),
    }
}

/// The tokenizer, and its file's contents unless it is GPT-2's.
fn tokenizer_of(
    source: &Path,
    config: &Gpt2Config,
    asked: Option<&config::Tokenizer>,
) -> Result<(config::Tokenizer, Option<Vec<u8>>)> {
    let beside = source.join(TOKENIZER_FILE);
    let choice = match asked {
        Some(config::Tokenizer::Bpe(_)) => {
            return Err(Error::user(
                "a tokenizer that is trained on a corpus does not fit a model that is trained already",
            )
            .at("--tokenizer")
            .remedy("give gpt2, or the path of a tokenizer.json"));
        }
        Some(choice) => choice.clone(),
        None if beside.is_file() => config::Tokenizer::File(beside),
        None if config.vocab_size == GPT2_TOKENS => config::Tokenizer::Gpt2,
        None => {
            return Err(Error::user(format!("there is no {TOKENIZER_FILE}"))
                .at(source.display().to_string())
                .remedy("give --tokenizer gpt2 or the path of one"));
        }
    };
    let (tokens, json) = match &choice {
        config::Tokenizer::File(path) => {
            let json = std::fs::read(path).map_err(|e| Error::io("read the tokenizer", path, &e))?;
            (Tokenizer::from_json(&json, &path.display().to_string())?.vocab_size(), Some(json))
        }
        _ => (GPT2_TOKENS, None),
    };
    if tokens > config.vocab_size {
        return Err(Error::user(format!(
            "the tokenizer {choice} has {tokens} tokens, and the model a vocabulary of {}",
            config.vocab_size
        ))
        .remedy("give the model's own tokenizer with --tokenizer"));
    }
    Ok((choice, json))
}
