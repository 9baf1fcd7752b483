//! GPT-2 as Hugging Face's transformers writes it: which of its tensors hold which of our parameters.
//!
//! Its linear layers (`Conv1D`) store `[in, out]` where ours store `[out, in]`; its queries, keys and values lie one behind the other, `[3, a, d]`, where
//! ours lie by head, `[a, 3, d]`; its vocabulary has no padding.

use std::path::Path;

use model::GptConfig;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `config.json`: the fields that say what the model computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// What the file is of.
    pub model_type: String,
    /// The classes that load it.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// V, without padding.
    pub vocab_size: usize,
    /// s.
    #[serde(alias = "n_ctx")]
    pub n_positions: usize,
    /// h.
    pub n_embd: usize,
    /// L.
    pub n_layer: usize,
    /// a.
    pub n_head: usize,
    /// Inner size of the MLP; 4h if it is not given.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// The activation.
    #[serde(default = "gelu_new")]
    pub activation_function: String,
    /// Epsilon of every LayerNorm.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f32,
    /// Standard deviation of the initial weights.
    #[serde(default = "range")]
    pub initializer_range: f32,
    /// Dropout in training: on the residual branches, the embedding and the attention.
    #[serde(default)]
    pub resid_pdrop: f32,
    /// See `resid_pdrop`.
    #[serde(default)]
    pub embd_pdrop: f32,
    /// See `resid_pdrop`.
    #[serde(default)]
    pub attn_pdrop: f32,
    /// Whether the logits come from the embedding.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether scores are divided by the square root of d.
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    /// Whether they are divided by the layer's number too.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The token that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// The token that ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
}

fn gelu_new() -> String {
    "gelu_new".to_owned()
}

fn epsilon() -> f32 {
    1e-5
}

fn range() -> f32 {
    0.02
}

fn yes() -> bool {
    true
}

/// Names of the GELU's approximation by tanh.
const TANH_GELU: [&str; 3] = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"];

impl Gpt2Config {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// Another architecture, or a GPT-2 that computes something else than our model does.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::io("read", path, &e))?;
        let place = path.display().to_string();
        let any: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| Error::user(format!("it is no JSON: {e}")).at(place.clone()))?;
        let kind = any["model_type"].as_str().unwrap_or("none");
        let refuse = |what: String, remedy: &str| Err(Error::user(what).at(place.clone()).remedy(remedy));
        if kind != "gpt2" {
            return refuse(format!("model_type is {kind}"), "give a model of the GPT-2 architecture");
        }
        let config: Self = serde_json::from_value(any)
            .map_err(|e| Error::user(format!("it is no config of a GPT-2: {e}")).at(place.clone()))?;
        for (key, fits, value, ours) in [
            (
                "activation_function",
                TANH_GELU.contains(&config.activation_function.as_str()),
                config.activation_function.clone(),
                "gelu_new (the tanh approximation)",
            ),
            ("tie_word_embeddings", config.tie_word_embeddings, "false".into(), "true"),
            ("scale_attn_weights", config.scale_attn_weights, "false".into(), "true"),
            (
                "scale_attn_by_inverse_layer_idx",
                !config.scale_attn_by_inverse_layer_idx,
                "true".into(),
                "false",
            ),
        ] {
            if !fits {
                return refuse(
                    format!("{key} is {value}, and the model here has {ours}"),
                    "choose a model without it",
                );
            }
        }
        if config.n_head == 0 || config.n_embd == 0 || !config.n_embd.is_multiple_of(config.n_head) {
            return refuse(
                format!("n_head = {} does not divide n_embd = {}", config.n_head, config.n_embd),
                "check the file",
            );
        }
        Ok(config)
    }

    /// Our shape of it, the vocabulary padded.
    pub fn model(&self) -> GptConfig {
        GptConfig {
            layers: self.n_layer,
            hidden: self.n_embd,
            heads: self.n_head,
            seq_len: self.n_positions,
            vocab: GptConfig::padded_vocab(self.vocab_size, 1),
            ffn_hidden: self.n_inner.unwrap_or(4 * self.n_embd),
            dropout: self.resid_pdrop,
            init_std: self.initializer_range,
            layernorm_eps: self.layer_norm_epsilon,
        }
    }

    /// That of our model, of which `tokens` rows of the vocabulary are no padding.
    pub fn of(model: &GptConfig, tokens: usize, end: u32) -> Self {
        Self {
            model_type: "gpt2".into(),
            architectures: vec!["GPT2LMHeadModel".into()],
            vocab_size: tokens,
            n_positions: model.seq_len,
            n_embd: model.hidden,
            n_layer: model.layers,
            n_head: model.heads,
            n_inner: (model.ffn_hidden != 4 * model.hidden).then_some(model.ffn_hidden),
            activation_function: gelu_new(),
            layer_norm_epsilon: model.layernorm_eps,
            initializer_range: model.init_std,
            resid_pdrop: model.dropout,
            embd_pdrop: model.dropout,
            attn_pdrop: model.dropout,
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            bos_token_id: Some(end),
            eos_token_id: Some(end),
        }
    }
}

/// How the values of a parameter lie in transformers' tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Alike.
    Same,
    /// Rows of the vocabulary that are padding are left out.
    Vocabulary,
    /// `[in, out]` instead of `[out, in]`.
    Transposed,
    /// `[in, 3, a, d]` instead of `[a, 3, d, in]`.
    Qkv,
    /// `[3, a, d]` instead of `[a, 3, d]`.
    QkvBias,
}

/// A parameter, and where it is in transformers' model.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Our logical name.
    pub ours: String,
    /// Our shape.
    pub shape: Vec<usize>,
    /// Theirs, without the `transformer.` that some files have before it.
    pub theirs: String,
    /// How it lies there.
    pub form: Form,
}

/// Every parameter of the model, in groups: the embeddings, each layer, the final LayerNorm.
pub fn entries(model: &GptConfig) -> Vec<Vec<Entry>> {
    let GptConfig { layers, hidden: h, ffn_hidden: f, vocab, seq_len, .. } = *model;
    let entry = |ours: String, shape: &[usize], theirs: String, form| Entry {
        ours,
        shape: shape.to_vec(),
        theirs,
        form,
    };
    let norm = |ours: &str, theirs: &str| {
        [("gamma", "weight"), ("beta", "bias")]
            .map(|(a, b)| entry(format!("{ours}.{a}"), &[h], format!("{theirs}.{b}"), Form::Same))
    };
    let layer = |i: usize| {
        let ours = |part: &str| format!("layers.{i}.{part}");
        let theirs = |part: &str| format!("h.{i}.{part}");
        let mut list = Vec::from(norm(&ours("ln1"), &theirs("ln_1")));
        list.extend(norm(&ours("ln2"), &theirs("ln_2")));
        for (a, b, shape, weight, bias) in [
            ("attention.qkv", "attn.c_attn", [3 * h, h], Form::Qkv, Form::QkvBias),
            ("attention.out", "attn.c_proj", [h, h], Form::Transposed, Form::Same),
            ("mlp.up", "mlp.c_fc", [f, h], Form::Transposed, Form::Same),
            ("mlp.down", "mlp.c_proj", [h, f], Form::Transposed, Form::Same),
        ] {
            list.push(entry(ours(&format!("{a}.weight")), &shape, theirs(&format!("{b}.weight")), weight));
            list.push(entry(ours(&format!("{a}.bias")), &shape[..1], theirs(&format!("{b}.bias")), bias));
        }
        list
    };
    let embeddings = vec![
        entry("embedding.token.weight".into(), &[vocab, h], "wte.weight".into(), Form::Vocabulary),
        entry("embedding.position.weight".into(), &[seq_len, h], "wpe.weight".into(), Form::Same),
    ];
    let mut all = vec![embeddings];
    all.extend((0..layers).map(layer));
    all.push(norm("final_ln", "ln_f").into());
    all
}

impl Entry {
    /// The shape of their tensor, where `tokens` rows of the vocabulary are no padding.
    pub fn their_shape(&self, tokens: usize) -> Vec<usize> {
        match self.form {
            Form::Same | Form::QkvBias => self.shape.clone(),
            Form::Vocabulary => vec![tokens, self.shape[1]],
            Form::Transposed | Form::Qkv => vec![self.shape[1], self.shape[0]],
        }
    }

    /// Our values from theirs. Padding is 0.
    pub fn to_ours(&self, theirs: &[f32], heads: usize) -> Vec<f32> {
        if self.form == Form::Vocabulary {
            let mut table = theirs.to_vec();
            table.resize(self.shape.iter().product(), 0.0);
            return table;
        }
        let from = self.places(heads);
        from.map_or_else(|| theirs.to_vec(), |from| from.map(|index| theirs[index]).collect())
    }

    /// Their values from ours.
    pub fn to_theirs(&self, ours: &[f32], heads: usize, tokens: usize) -> Vec<f32> {
        if self.form == Form::Vocabulary {
            return ours[..tokens * self.shape[1]].to_vec();
        }
        let Some(places) = self.places(heads) else { return ours.to_vec() };
        let mut theirs = vec![0.0; ours.len()];
        places.zip(ours).for_each(|(index, value)| theirs[index] = *value);
        theirs
    }

    /// For each of our elements in order, where theirs is; none where both are in the same order.
    fn places(&self, heads: usize) -> Option<impl Iterator<Item = usize>> {
        let (rows, columns) = (self.shape[0], self.shape.get(1).copied().unwrap_or(1));
        let (by_head, transposed) = match self.form {
            Form::Same | Form::Vocabulary => return None,
            Form::Transposed => (false, true),
            Form::Qkv => (true, true),
            Form::QkvBias => (true, false),
        };
        let d = rows / 3 / heads.max(1);
        Some((0..rows * columns).map(move |index| {
            let (row, column) = (index / columns, index % columns);
            let row = match by_head {
                // Row (head, part, element) is theirs at (part, head, element).
                true => (row / d % 3 * heads + row / (3 * d)) * d + row % d,
                false => row,
            };
            if transposed { column * rows + row } else { row * columns + column }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_a_place_and_comes_back() {
        let model = GptConfig { ffn_hidden: 20, ..GptConfig::new(2, 12, 3, 8, 128) };
        let shard = model::Shard::whole(&model);
        let mut ours: Vec<_> =
            shard.parameters(&model).into_iter().map(|p| (p.name, p.slice.global)).collect();
        let groups = entries(&model);
        let mut listed: Vec<_> = groups.iter().flatten().map(|e| (e.ours.clone(), e.shape.clone())).collect();
        ours.sort();
        listed.sort();
        assert_eq!(listed, ours);
        for entry in groups.iter().flatten() {
            let tokens = 101;
            let len: usize = entry.their_shape(tokens).iter().product();
            let theirs: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
            let values = entry.to_ours(&theirs, model.heads);
            assert_eq!(values.len(), entry.shape.iter().product::<usize>(), "{}", entry.ours);
            assert_eq!(entry.to_theirs(&values, model.heads, tokens), theirs, "{}", entry.ours);
        }
    }

    /// One element followed by hand: of 2 heads of 3, the key (1) of head 1, element 2, for input 4 of 6.
    #[test]
    fn queries_keys_and_values_by_head() {
        let entry = Entry { ours: String::new(), shape: vec![18, 6], theirs: String::new(), form: Form::Qkv };
        let mut theirs = vec![0.0; 108];
        theirs[4 * 18 + 6 + 3 + 2] = 7.0;
        let ours = entry.to_ours(&theirs, 2);
        assert_eq!(ours.iter().position(|&x| x == 7.0), Some(((3 + 1) * 3 + 2) * 6 + 4));
    }
}
