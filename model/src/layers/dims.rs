//! Extents of a microbatch on a rank.

use backend::DType;

use crate::{GptConfig, Shard};

/// Extents of a microbatch on this rank, and the types of what is computed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Sequences, b.
    pub batch: usize,
    /// Tokens a sequence, s.
    pub seq: usize,
    /// Hidden size, h.
    pub hidden: usize,
    /// Head size, d.
    pub head_dim: usize,
    /// Chunks of this rank.
    pub chunks: usize,
    /// Heads of a chunk, a.
    pub heads: usize,
    /// FFN columns of a chunk, f.
    pub ffn: usize,
    /// Vocabulary rows of a chunk, v.
    pub vocab: usize,
    /// Ranks that share out the tokens between matrix products.
    pub token_parts: usize,
    /// Parts of this rank's tokens whose sums are taken apart.
    pub token_chunks: usize,
    /// Type of activations.
    pub dtype: DType,
    /// Type of a chunk's partial sums: f32 where their tree goes on over the tensor group whatever its size, else that of activations.
    pub partial: DType,
}

impl Dims {
    /// Extents for microbatches of `batch` sequences of `seq` tokens.
    pub fn new(
        config: &GptConfig,
        shard: &Shard,
        (batch, seq): (usize, usize),
        [dtype, partial]: [DType; 2],
    ) -> Self {
        Self {
            batch,
            seq,
            hidden: config.hidden,
            head_dim: config.head_dim(),
            chunks: shard.local_chunks().len(),
            heads: config.heads / shard.chunks,
            ffn: config.ffn_hidden / shard.chunks,
            vocab: config.vocab / shard.chunks,
            token_parts: shard.token_parts(),
            token_chunks: shard.local_token_chunks(),
            dtype,
            partial,
        }
    }

    /// Tokens of a microbatch, t.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Tokens whose residual stream this rank has, t': all of them, or its part under sequence parallelism.
    pub fn own_tokens(&self) -> usize {
        self.tokens() / self.token_parts
    }

    /// Columns of a chunk's attention, a d.
    pub fn attention(&self) -> usize {
        self.heads * self.head_dim
    }
}
