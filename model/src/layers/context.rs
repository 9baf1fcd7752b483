//! What every layer's forward and backward are given beside their operands.

use backend::ops::{AttentionDropout, DropoutMask};
use backend::philox::Stream;
use backend::{Backend, Buffer, Result, View};

use super::{Cached, Dims, Scratch};
use crate::{GptConfig, ParameterStore, Shard, TensorGroup};

/// Where in the model a dropout stands. Each has a Philox stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutSite {
    /// On the embedding.
    Embedding,
    /// On a layer's attention probabilities.
    Probabilities(usize),
    /// On a layer's attention output.
    AttentionOutput(usize),
    /// On a layer's MLP output.
    MlpOutput(usize),
}

impl DropoutSite {
    fn stream(self) -> u64 {
        let (layer, site) = match self {
            DropoutSite::Embedding => (0, 0),
            DropoutSite::Probabilities(layer) => (layer, 1),
            DropoutSite::AttentionOutput(layer) => (layer, 2),
            DropoutSite::MlpOutput(layer) => (layer, 3),
        };
        layer as u64 * 4 + site
    }
}

/// The model's surroundings in one forward or backward of one microbatch.
pub struct Context<'a, B: Backend> {
    /// Where operations go.
    pub backend: &'a B,
    /// The ranks that share each layer.
    pub tensor: &'a TensorGroup<'a, B::Buffer>,
    /// This rank's parameters and gradients.
    pub parameters: &'a ParameterStore<B>,
    /// Memory within a layer.
    pub scratch: &'a Scratch<B>,
    /// The model.
    pub config: &'a GptConfig,
    /// This rank's part of it.
    pub shard: &'a Shard,
    /// Extents of the microbatch.
    pub dims: Dims,
    /// Seed of the dropout masks; `None` where nothing is dropped: validation and inference.
    pub dropout_seed: Option<u64>,
    /// Global index of the microbatch's first sample.
    pub first_sample: u64,
    /// What the tokens are added to; `None` where sequences are whole.
    pub cached: Option<Cached<'a, B>>,
}

impl<'a, B: Backend> Context<'a, B> {
    /// The memory that operations ask for.
    pub fn workspace(&self) -> View<'a, B::Buffer> {
        self.scratch.workspace.view()
    }

    fn stream(&self, site: DropoutSite) -> Option<Stream> {
        let seed = self.dropout_seed.filter(|_| self.config.dropout > 0.0)?;
        Some(Stream { seed, stream: site.stream() })
    }

    /// The mask of a dropout on this rank's tokens `[t', h]`.
    pub fn mask(&self, site: DropoutSite) -> Option<DropoutMask> {
        let Dims { seq, hidden, .. } = self.dims;
        let before = self.token_part() * self.dims.own_tokens();
        let first = (self.first_sample * seq as u64 + before as u64) * hidden as u64;
        self.stream(site).map(|stream| DropoutMask { p: self.config.dropout, stream, first })
    }

    /// The mask of the dropout on the attention probabilities of a layer's chunk `chunk` of this rank.
    pub fn attention_mask(&self, layer: usize, chunk: usize) -> Option<AttentionDropout> {
        self.stream(DropoutSite::Probabilities(layer)).map(|stream| AttentionDropout {
            p: self.config.dropout,
            stream,
            first_sample: self.first_sample,
            first_head: (self.shard.local_chunks().start + chunk) * self.dims.heads,
            heads: self.config.heads,
        })
    }

    /// Which part of the tokens this rank has.
    fn token_part(&self) -> usize {
        if self.shard.sequence_parallel { self.shard.tensor_rank } else { 0 }
    }

    /// The first vocabulary row of this rank's chunk `chunk`.
    pub fn first_row(&self, chunk: usize) -> usize {
        (self.shard.local_chunks().start + chunk) * self.dims.vocab
    }

    /// This rank's tokens of a tensor that has a row for every token.
    pub fn own<'v, V: Buffer>(&self, whole: View<'v, V>) -> Result<View<'v, V>> {
        whole.rows(self.token_part() * self.dims.own_tokens(), self.dims.own_tokens())
    }

    /// Every token's row from each rank's own: `own` itself where this rank has all of them, else in `room [t, h]`.
    ///
    /// # Errors
    /// Those of the group.
    pub fn gathered<'v>(
        &self,
        own: View<'v, B::Buffer>,
        room: View<'v, B::Buffer>,
    ) -> Result<View<'v, B::Buffer>> {
        if self.dims.token_parts == 1 {
            return Ok(own);
        }
        self.tensor.gather(own, room)?;
        Ok(room)
    }

    /// Rows `chunk` of the equal parts of this rank's tokens that are summed apart.
    pub fn token_chunk<'v, V: Buffer>(&self, own: View<'v, V>, chunk: usize) -> Result<View<'v, V>> {
        let rows = self.dims.own_tokens() / self.dims.token_chunks;
        own.rows(chunk * rows, rows)
    }
}
