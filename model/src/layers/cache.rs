//! Keys and values of the tokens so far: what generation and scoring have instead of a second look at them.

use backend::{Backend, Class, Result, View};

use super::{Chunked, Dims};

/// The cache of a stage: for each of its layers `[slots, a, 2, length, d]` a chunk.
pub struct KvCache<B: Backend> {
    layers: Vec<Chunked<B>>,
    first: usize,
}

impl<B: Backend> KvCache<B> {
    /// Memory for `slots` sequences of `length` tokens each in the layers of a stage.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &B,
        dims: &Dims,
        layers: std::ops::Range<usize>,
        [slots, length]: [usize; 2],
    ) -> Result<Self> {
        let shape = [slots, dims.heads, 2, length, dims.head_dim];
        let first = layers.start;
        let layer = |_| Chunked::new(backend, Class::Activations, dims.dtype, dims.chunks, &shape);
        Ok(Self { layers: layers.map(layer).collect::<Result<_>>()?, first })
    }

    /// Chunk `chunk` of layer `layer` of the model.
    pub fn at(&self, layer: usize, chunk: usize) -> View<'_, B::Buffer> {
        self.layers[layer - self.first].at(chunk)
    }
}

/// The new tokens of a forward over a cache. Each is a sequence of one token to the layers: which sequences they belong to is the attention's business alone.
pub struct Cached<'a, B: Backend> {
    /// What came before them.
    pub cache: &'a KvCache<B>,
    /// `[t, 4]`: slot, position, shared slot, shared length; see [`AttentionCached`](backend::ops::AttentionCached).
    pub places: View<'a, B::Buffer>,
    /// `[t]`: the positions once more, for the embedding.
    pub positions: View<'a, B::Buffer>,
}
