//! What a Megatron-LM run was started with, as its checkpoints keep it: `args`, an `argparse.Namespace`.
//!
//! The names are those of `megatron/training/arguments.py` and of its older versions. An argument that is not there, or `None`, was not known to the version that
//! wrote the checkpoint, or left at its default.

use model::GptConfig;

use super::super::pickle::{Id, Value};
use super::super::torch_file::TorchFile;
use crate::{Error, Result};

/// The arguments that say what the model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// L.
    pub layers: usize,
    /// h.
    pub hidden: usize,
    /// a.
    pub heads: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Inner size of the MLP.
    pub ffn_hidden: usize,
    /// Epsilon of every LayerNorm.
    pub epsilon: f32,
    /// Standard deviation of the initial weights.
    pub init_std: f32,
    /// Dropout in training.
    pub dropout: f32,
    /// Rows of the embedding, all tensor ranks together.
    pub padded_vocab: usize,
    /// What they are a multiple of on each tensor rank.
    pub divisible: usize,
    /// Those that are tokens, where it was said.
    pub vocab: Option<usize>,
    /// Tensor ranks.
    pub tensor: usize,
    /// Pipeline stages.
    pub pipeline: usize,
    /// The class of the tokenizer.
    pub tokenizer: Option<String>,
}

/// Switches that must be off, and what the model here has instead.
const OFF: [(&str, &str); 12] = [
    ("swiglu", "a GELU"),
    ("squared_relu", "a GELU"),
    ("quick_geglu", "a GELU"),
    ("onnx_safe", "the GELU's tanh approximation"),
    ("untie_embeddings_and_output_weights", "logits from the embedding"),
    ("apply_residual_connection_post_layernorm", "residual connections around the LayerNorms"),
    ("apply_layernorm_1p", "LayerNorms whose gains stand as they are"),
    ("disable_bias_linear", "biases in all linear layers"),
    ("use_rotary_position_embeddings", "learned positions"),
    ("qk_layernorm", "no LayerNorm on queries and keys"),
    ("multi_latent_attention", "keys and values a head"),
    ("retro_add_retriever", "no retriever"),
];

/// Switches that must be on where they are known.
const ON: [(&str, &str); 2] =
    [("add_bias_linear", "biases in all linear layers"), ("add_position_embedding", "learned positions")];

/// What must have this value if it has one.
const TEXTS: [(&str, &str); 4] = [
    ("normalization", "LayerNorm"),
    ("position_embedding_type", "learned_absolute"),
    ("attention_head_type", "multihead"),
    ("softmax_type", "vanilla"),
];

/// What must not be given.
const ABSENT: [(&str, &str); 5] = [
    ("num_experts", "one MLP a layer"),
    ("window_size", "attention over all that came before"),
    ("hybrid_override_pattern", "attention in every layer"),
    ("heterogeneous_layers_config_path", "layers that are all alike"),
    ("mtp_num_layers", "no layers beside those that predict the next token"),
];

/// The namespace in a file.
struct Space<'a> {
    file: &'a TorchFile,
    items: &'a [(Id, Id)],
}

impl Space<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        let id = self.file.pickle.find(self.items, name)?;
        Some(self.file.pickle.get(id)).filter(|value| **value != Value::None)
    }

    fn error(&self, what: String) -> Error {
        Error::user(what).at(self.file.path().display().to_string())
    }

    /// The error that an argument asks for what the model here does not do.
    fn refused(&self, name: &str, ours: &str) -> Error {
        let value = self
            .file
            .pickle
            .find(self.items, name)
            .map_or("absent".into(), |id| self.file.pickle.describe(id));
        self.error(format!("the checkpoint's {name} is {value}, and the model here has {ours}"))
            .remedy("choose a GPT without it")
    }

    fn wrong(&self, name: &str, wanted: &str) -> Error {
        match self.file.pickle.find(self.items, name) {
            Some(id) => self
                .error(format!("the checkpoint's {name} is {}, not {wanted}", self.file.pickle.describe(id)))
                .remedy("check how the checkpoint was written"),
            None => self
                .error(format!("the checkpoint's args have no {name}"))
                .remedy("save it again with its arguments, with a Megatron-LM that keeps them"),
        }
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Int(value)) if (1..=1 << 24).contains(value) => Ok(Some(*value as usize)),
            Some(_) => Err(self.wrong(name, "a size of 1 to 2^24")),
        }
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.optional_size(name)?.ok_or_else(|| self.wrong(name, "a size"))
    }

    fn number(&self, name: &str) -> Result<Option<f32>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value as f32)),
            Some(Value::Int(value)) => Ok(Some(*value as f32)),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    fn is_on(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(_) => Err(self.wrong(name, "True or False")),
        }
    }

    /// Refuses what the model here does not do.
    fn check(&self) -> Result<()> {
        for (name, ours) in OFF {
            if self.is_on(name)? {
                return Err(self.refused(name, ours));
            }
        }
        for (name, ours) in ON {
            if self.get(name).is_some() && !self.is_on(name)? {
                return Err(self.refused(name, ours));
            }
        }
        for (name, ours) in TEXTS {
            match self.get(name) {
                Some(Value::Text(text)) if text == ours => {}
                Some(_) => return Err(self.refused(name, ours)),
                None => {}
            }
        }
        for (name, ours) in ABSENT {
            if self.get(name).is_some() {
                return Err(self.refused(name, ours));
            }
        }
        // The fused kernel computes the tanh approximation; without it F.gelu is the exact one.
        if !self.is_on("bias_gelu_fusion")? && !self.is_on("openai_gelu")? {
            let ours = "the GELU's tanh approximation (bias_gelu_fusion or openai_gelu)";
            return Err(self.refused("bias_gelu_fusion", ours));
        }
        Ok(())
    }
}

impl Args {
    /// Reads the arguments of a file, whose keys are `top`.
    ///
    /// # Errors
    /// There are none, or one is missing or wrong, or asks for what the model here does not do.
    pub fn read(file: &TorchFile, top: &[(Id, Id)]) -> Result<Self> {
        let args = file.pickle.find(top, "args").and_then(|id| file.pickle.attributes(id));
        let items = args.ok_or_else(|| {
            Error::user("the checkpoint has no args, and its sizes are not known without them")
                .at(file.path().display().to_string())
                .remedy("save it again with a Megatron-LM that keeps them")
        })?;
        let space = Space { file, items };
        space.check()?;
        let (hidden, heads) = (space.size("hidden_size")?, space.size("num_attention_heads")?);
        if !hidden.is_multiple_of(heads) {
            return Err(space.wrong("num_attention_heads", &format!("a divisor of hidden_size = {hidden}")));
        }
        if space.optional_size("kv_channels")?.is_some_and(|channels| channels != hidden / heads) {
            let ours = format!("hidden_size / num_attention_heads = {}", hidden / heads);
            return Err(space.refused("kv_channels", &ours));
        }
        let groups = space.optional_size("num_query_groups")?;
        if space.is_on("group_query_attention")? && groups != Some(heads) {
            return Err(
                space.refused("num_query_groups", &format!("keys and values for each of {heads} heads"))
            );
        }
        let epsilon = match space.number("layernorm_epsilon")? {
            Some(epsilon) => Some(epsilon),
            None => space.number("norm_epsilon")?,
        };
        let tensor = match space.optional_size("tensor_model_parallel_size")? {
            Some(tensor) => tensor,
            None => space.size("model_parallel_size")?,
        };
        let all = Self {
            layers: space.size("num_layers")?,
            hidden,
            heads,
            positions: space.size("max_position_embeddings")?,
            ffn_hidden: space.optional_size("ffn_hidden_size")?.unwrap_or(4 * hidden),
            epsilon: epsilon.unwrap_or(1e-5),
            init_std: space.number("init_method_std")?.unwrap_or(0.02),
            dropout: space.number("hidden_dropout")?.unwrap_or(0.0),
            padded_vocab: space.size("padded_vocab_size")?,
            divisible: space.optional_size("make_vocab_size_divisible_by")?.unwrap_or(128),
            vocab: space.optional_size("vocab_size")?,
            tensor,
            pipeline: space.optional_size("pipeline_model_parallel_size")?.unwrap_or(1),
            tokenizer: match space.get("tokenizer_type") {
                Some(Value::Text(name)) => Some(name.clone()),
                _ => None,
            },
        };
        for (name, size) in [
            ("num_attention_heads", heads),
            ("ffn_hidden_size", all.ffn_hidden),
            ("padded_vocab_size", all.padded_vocab),
        ] {
            if !size.is_multiple_of(tensor) {
                return Err(space.wrong(name, &format!("a multiple of the {tensor} tensor ranks")));
            }
        }
        Ok(all)
    }

    /// The first argument that differs: its name, and both values.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let all = |args: &Self| {
            [
                ("num_layers", args.layers.to_string()),
                ("hidden_size", args.hidden.to_string()),
                ("num_attention_heads", args.heads.to_string()),
                ("max_position_embeddings", args.positions.to_string()),
                ("ffn_hidden_size", args.ffn_hidden.to_string()),
                ("layernorm_epsilon", args.epsilon.to_string()),
                ("padded_vocab_size", args.padded_vocab.to_string()),
                ("tensor_model_parallel_size", args.tensor.to_string()),
                ("pipeline_model_parallel_size", args.pipeline.to_string()),
            ]
        };
        let mut both = all(self).into_iter().zip(all(other));
        both.find(|(a, b)| a != b).map(|((name, a), (_, b))| (name, a, b))
    }

    /// Our shape of it, for a vocabulary of so many tokens.
    pub fn model(&self, tokens: usize) -> GptConfig {
        GptConfig {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            seq_len: self.positions,
            vocab: GptConfig::padded_vocab(tokens, 1),
            ffn_hidden: self.ffn_hidden,
            dropout: self.dropout,
            init_std: self.init_std,
            layernorm_eps: self.epsilon,
        }
    }
}
