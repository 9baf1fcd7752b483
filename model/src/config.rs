//! The shape of a GPT model, and what follows from the shape alone: parameters, FLOPs, initial standard deviations.

use serde::{Deserialize, Serialize};

/// Vocabularies are padded so that every tensor rank holds the same number of rows (Megatron: a multiple of 128 x tp).
pub const VOCAB_PADDING: usize = 128;

/// A decoder-only, pre-LayerNorm transformer with learned positions, tanh-GELU, biases everywhere and a tied embedding (MT-NLG, section 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptConfig {
    /// Transformer layers, L.
    pub layers: usize,
    /// Hidden size, h; a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads, a.
    pub heads: usize,
    /// Sequence length, s: tokens a sample, and rows of the position table.
    pub seq_len: usize,
    /// Vocabulary rows of the embedding, padding included, V.
    pub vocab: usize,
    /// Inner size of the MLP; 4h in every published model.
    pub ffn_hidden: usize,
    /// Dropout probability: on the embedding, the attention probabilities and both residual branches.
    pub dropout: f32,
    /// Standard deviation of the initial weights; the two projections into the residual stream have `init_std / sqrt(2 L)`.
    pub init_std: f32,
    /// Epsilon of every LayerNorm.
    pub layernorm_eps: f32,
}

/// Why a [`GptConfig`] cannot be built, or not be cut as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size that must not be 0 is.
    #[error("model.{key} is 0; it must be at least 1")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// One size must divide another.
    #[error("{divisor_key} = {divisor} does not divide {key} = {value}; choose {divisor_key} among its divisors: {}", divisors(*value))]
    NotDivisible {
        /// What is to be cut.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What it is cut by.
        divisor_key: &'static str,
        /// By how much.
        divisor: usize,
    },
    /// A number outside its range.
    #[error("model.{key} = {value} is out of range; it must be {range}")]
    Range {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        value: f32,
        /// The range, in words.
        range: &'static str,
    },
}

/// The divisors of `n` that a user would choose from, up to 64, as a list for a message.
fn divisors(n: usize) -> String {
    let list: Vec<String> = (1..=n.min(64)).filter(|d| n.is_multiple_of(*d)).map(|d| d.to_string()).collect();
    list.join(", ")
}

impl GptConfig {
    /// A model of these sizes with `ffn_hidden = 4h`, `init_std = sqrt(1 / (3h))` (MT-NLG's rule), eps 1e-5 and no dropout.
    pub fn new(layers: usize, hidden: usize, heads: usize, seq_len: usize, vocab: usize) -> Self {
        Self {
            layers,
            hidden,
            heads,
            seq_len,
            vocab,
            ffn_hidden: 4 * hidden,
            dropout: 0.0,
            init_std: (1.0 / (3.0 * hidden as f64)).sqrt() as f32,
            layernorm_eps: 1e-5,
        }
    }

    /// Size of one attention head, d = h / a.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Checks the sizes against each other and against `tp` tensor ranks.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, the value and what would do.
    pub fn validate(&self, tp: usize) -> Result<(), ConfigError> {
        for (key, value) in [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("seq_len", self.seq_len),
            ("vocab", self.vocab),
            ("ffn_hidden", self.ffn_hidden),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { key });
            }
        }
        let divides = |key, value: usize, divisor_key, divisor: usize| match divisor != 0
            && value.is_multiple_of(divisor)
        {
            true => Ok(()),
            false => Err(ConfigError::NotDivisible { key, value, divisor_key, divisor }),
        };
        divides("model.hidden", self.hidden, "model.heads", self.heads)?;
        divides("model.heads", self.heads, "parallel.tensor", tp)?;
        divides("model.ffn_hidden", self.ffn_hidden, "parallel.tensor", tp)?;
        divides("model.vocab", self.vocab, "parallel.tensor", tp)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ConfigError::Range {
                key: "dropout",
                value: self.dropout,
                range: "at least 0 and below 1",
            });
        }
        for (key, value) in [("init_std", self.init_std), ("layernorm_eps", self.layernorm_eps)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(ConfigError::Range { key, value, range: "positive and finite" });
            }
        }
        Ok(())
    }

    /// Exact number of parameters, the tied embedding counted once.
    ///
    /// A layer has two LayerNorms (4h), QKV (3h^2 + 3h), the attention output (h^2 + h) and the MLP (2 h f + f + h); around them stand the token
    /// and position tables (V h + s h) and the final LayerNorm (2h). With f = 4h it is NAR's `12 L h^2 (1 + 13/(12h) + (V + s)/(12 L h))` + 2h.
    pub fn parameters(&self) -> u64 {
        let [l, h, f, v, s] =
            [self.layers, self.hidden, self.ffn_hidden, self.vocab, self.seq_len].map(|n| n as u64);
        let layer = 4 * h + (3 * h * h + 3 * h) + (h * h + h) + (2 * h * f + f + h);
        l * layer + v * h + s * h + 2 * h
    }

    /// Model FLOPs of forward and backward a token, no recomputation: `72 L h^2 (1 + s/(6h) + V/(12 L h))` (NAR, section 5.1), with f = 4h
    /// replaced by the model's own FFN size.
    pub fn flops_per_token(&self) -> f64 {
        let [l, h, f, v, s] =
            [self.layers, self.hidden, self.ffn_hidden, self.vocab, self.seq_len].map(|n| n as f64);
        let layer = 2.0 * (4.0 * h * h + 2.0 * h * f) + 4.0 * s * h;
        3.0 * (l * layer + 2.0 * h * v)
    }

    /// `tokens` rounded up to a multiple of [`VOCAB_PADDING`] x `tp`: the rows that the embedding gets for a tokenizer of that size.
    pub fn padded_vocab(tokens: usize, tp: usize) -> usize {
        tokens.next_multiple_of(VOCAB_PADDING * tp.max(1))
    }

    /// Standard deviation of the two projections into the residual stream: `init_std / sqrt(2 L)`.
    pub fn residual_std(&self) -> f32 {
        (f64::from(self.init_std) / (2.0 * self.layers as f64).sqrt()) as f32
    }
}
