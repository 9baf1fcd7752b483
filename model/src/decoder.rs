//! A pipeline stage for inference: new tokens of any sequences at once, over a cache of keys and values.
//!
//! A step has as many tokens as it has; its memory and its operations are those of the next size of a fixed ladder, filled up with padding, so that a backend
//! sees few shapes. Nothing is allocated between [`Decoder::new`] and the end.

use std::sync::Arc;

use backend::ops::{BiasAdd, Embedding, Scratch as Need};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use crate::layers::{
    Block, BlockActivations, Cached, Chunked, Context, Dims, EmbeddingActivations, Head, HeadActivations,
    KvCache, Scratch, TokenEmbedding,
};
use crate::{GptConfig, ParameterStore, Recompute, Shard, StoreOptions, TensorGroup};

/// Where a token stands: slot, position, shared slot, shared length; see [`AttentionCached`](backend::ops::AttentionCached).
pub type Place = [u32; 4];

/// What padding is given: a slot that there is not.
const NOWHERE: Place = [u32::MAX, u32::MAX, u32::MAX, 0];

/// How a decoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderOptions {
    /// Sequences that the cache holds.
    pub slots: usize,
    /// Tokens of each.
    pub length: usize,
    /// Tokens of a step at the most.
    pub tokens: usize,
    /// Rows of logits at a time at the most.
    pub rows: usize,
    /// Tokens that there are: the rest of the model's vocabulary is padding, and has no probability.
    pub vocabulary: usize,
    /// Type of weights and activations.
    pub dtype: DType,
    /// Type of a chunk's partial sums: f32 where a layout must not be told from the bits.
    pub partial: DType,
}

/// What the model thinks of a token that was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Its log-likelihood, in nats.
    pub log_likelihood: f32,
    /// Whether no token is likelier.
    pub is_greedy: bool,
}

/// Memory of a step of up to so many tokens.
struct Step<B: Backend> {
    dims: Dims,
    scratch: Scratch<B>,
    /// `[t, h]`: the residual stream.
    stream: Tensor<B::Buffer>,
    /// `[t, 4]`, `[t]`.
    places: Tensor<B::Buffer>,
    positions: Tensor<B::Buffer>,
    embedding: Option<EmbeddingActivations<B>>,
    block: BlockActivations<B>,
}

/// Memory of up to so many rows of logits.
struct Rows<B: Backend> {
    dims: Dims,
    /// `[r]`: which rows of the step.
    index: Tensor<B::Buffer>,
    /// `[r, h]`: those.
    x: Tensor<B::Buffer>,
    kept: HeadActivations<B>,
    /// `[tensor size, chunks, r, v]`: the logits of all ranks, where there are several.
    whole: Option<Tensor<B::Buffer>>,
}

/// One rank's part of the model, ready to add tokens to sequences.
pub struct Decoder<'a, B: Backend> {
    backend: &'a B,
    tensor: TensorGroup<'a, B::Buffer>,
    config: GptConfig,
    shard: Shard,
    options: DecoderOptions,
    parameters: Arc<ParameterStore<B>>,
    cache: KvCache<B>,
    embedding: Option<TokenEmbedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
    steps: Vec<Step<B>>,
    rows: Vec<Rows<B>>,
    /// `[v]` a chunk: -1e30 for what is no token, else 0; where the vocabulary has padding.
    no_token: Option<Chunked<B>>,
}

/// 1, 2, 3, 4, 6, 8, 12, ... up to `most`, which is the last: at most a third of a step is padding.
fn ladder(most: usize) -> Vec<usize> {
    let powers = (0..usize::BITS).map(|bits| 1_usize << bits).take_while(|&power| power < most);
    let mut sizes: Vec<usize> =
        powers.flat_map(|power| [power, power / 2 * 3]).filter(|&n| n > 0 && n < most).collect();
    sizes.push(most);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The shard as inference has it: each token is a sequence of its own to all layers but the attention, and sequence parallelism has nothing to save.
fn alone(shard: &Shard) -> Shard {
    Shard { sequence_parallel: false, token_chunks: 1, ..shard.clone() }
}

impl<'a, B: Backend> Decoder<'a, B> {
    /// The shard's layers and an empty cache; parameters are 0 until they are loaded.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        tensor: TensorGroup<'a, B::Buffer>,
        config: &GptConfig,
        shard: &Shard,
        options: DecoderOptions,
    ) -> Result<Self> {
        let shard = alone(shard);
        let store = StoreOptions { dtype: options.dtype, parts: 1, tree: None, gradients: false };
        let parameters = Arc::new(ParameterStore::new(backend, config, &shard, store)?);
        Self::over(backend, tensor, config, &shard, options, parameters)
    }

    /// The shard's layers over parameters that are there, of the options' type, and an empty cache: what is written into them, by whomever, is what this
    /// computes with.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn over(
        backend: &'a B,
        tensor: TensorGroup<'a, B::Buffer>,
        config: &GptConfig,
        shard: &Shard,
        options: DecoderOptions,
        parameters: Arc<ParameterStore<B>>,
    ) -> Result<Self> {
        let shard = alone(shard);
        let types = [options.dtype, options.partial];
        let dims = |tokens: usize| Dims::new(config, &shard, (tokens, 1), types);
        let decoder = Self {
            cache: KvCache::new(backend, &dims(1), shard.layers.clone(), [options.slots, options.length])?,
            embedding: shard.first.then(|| TokenEmbedding::new(&parameters)),
            blocks: shard.layers.clone().map(|layer| Block::new(&parameters, layer)).collect(),
            head: shard.last.then(|| Head::new(&parameters)),
            steps: ladder(options.tokens)
                .into_iter()
                .map(|tokens| Step::new(backend, &shard, dims(tokens), options.length))
                .collect::<Result<_>>()?,
            rows: match shard.last {
                true => ladder(options.rows)
                    .into_iter()
                    .map(|rows| Rows::new(backend, &shard, dims(rows)))
                    .collect::<Result<_>>()?,
                false => Vec::new(),
            },
            no_token: None,
            tensor,
            config: config.clone(),
            shard: shard.clone(),
            options,
            parameters,
            backend,
        };
        decoder.with_padding_marked(&dims(1))
    }

    fn with_padding_marked(mut self, dims: &Dims) -> Result<Self> {
        if self.head.is_some() && self.options.vocabulary < self.config.vocab {
            let marks =
                Chunked::new(self.backend, Class::Parameters, DType::F32, dims.chunks, &[dims.vocab])?;
            for (chunk, mark) in marks.iter().enumerate() {
                let first = (self.shard.local_chunks().start + chunk) * dims.vocab;
                let mark_of = |row| if first + row < self.options.vocabulary { 0.0 } else { -1.0e30 };
                let values: Vec<f32> = (0..dims.vocab).map(mark_of).collect();
                self.backend.write(mark, bytemuck::cast_slice(&values))?;
            }
            self.no_token = Some(marks);
        }
        Ok(self)
    }

    /// The parameters.
    pub fn parameters(&self) -> &ParameterStore<B> {
        &self.parameters
    }

    /// The rank's part of the model.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// How it computes.
    pub fn options(&self) -> &DecoderOptions {
        &self.options
    }

    fn step(&self, tokens: usize) -> &Step<B> {
        let fits = |step: &&Step<B>| step.dims.tokens() >= tokens;
        self.steps.iter().find(fits).expect("a step has at most as many tokens as was said")
    }

    /// `[t', h]`, `t'` the next size on the ladder: the residual stream of a step of that many tokens. What a stage that is not the first receives, and one that is
    /// not the last sends on.
    ///
    /// # Panics
    /// If there are more tokens than the options say.
    pub fn stream(&self, tokens: usize) -> View<'_, B::Buffer> {
        self.step(tokens).stream.view()
    }

    /// The [`stream`](Self::stream) of each size of a step.
    pub fn streams(&self) -> impl Iterator<Item = View<'_, B::Buffer>> {
        self.steps.iter().map(|step| step.stream.view())
    }

    /// From the tokens (on the first stage) or the received [`stream`](Self::stream) to the stream behind this stage's layers, keys and values added to the
    /// cache.
    ///
    /// # Errors
    /// Those of the backend and the group.
    ///
    /// # Panics
    /// If there are more tokens than the options say, or not as many places.
    pub fn forward(&self, tokens: &[u32], places: &[Place]) -> Result<()> {
        assert_eq!(tokens.len(), places.len(), "a place a token");
        let step = self.step(tokens.len());
        let t = step.dims.tokens();
        let padded = |row: usize| places.get(row).copied().unwrap_or(NOWHERE);
        let all: Vec<Place> = (0..t).map(padded).collect();
        let positions: Vec<u32> = all.iter().map(|place| place[1]).collect();
        self.backend.write(step.places.view(), bytemuck::cast_slice(&all))?;
        self.backend.write(step.positions.view(), bytemuck::cast_slice(&positions))?;
        let cx = self.context(step.dims, step, true);
        let x = step.stream.view();
        if let (Some(embedding), Some(kept)) = (&self.embedding, &step.embedding) {
            let mut ids = tokens.to_vec();
            ids.resize(t, u32::MAX);
            self.backend.write(kept.tokens.view(), bytemuck::cast_slice(&ids))?;
            embedding.forward(&cx, kept, x)?;
        }
        // A layer has read its input for the last time before it writes its output.
        self.blocks.iter().try_for_each(|block| block.forward(&cx, x, &step.block, x))
    }

    /// What the model thinks of `targets[i]` as the token behind row `rows[i]` of the step of that many tokens, on the last stage.
    ///
    /// # Errors
    /// Those of the backend and the group.
    ///
    /// # Panics
    /// If there are not as many targets as rows, or this is not the last stage.
    pub fn scores(&self, tokens: usize, rows: &[u32], targets: &[u32]) -> Result<Vec<Score>> {
        assert_eq!(rows.len(), targets.len(), "a target a row");
        let mut scores = Vec::with_capacity(rows.len());
        for (rows, targets) in rows.chunks(self.options.rows).zip(targets.chunks(self.options.rows)) {
            self.head(tokens, rows, |head, cx, room| {
                let mut ids = targets.to_vec();
                ids.resize(room.dims.tokens(), 0);
                self.backend.write(room.kept.targets.view(), bytemuck::cast_slice(&ids))?;
                head.losses(cx, &room.kept)?;
                let [loss, below] = [room.kept.loss.view(), room.kept.target_below_largest()?].map(|view| {
                    let mut values = vec![0.0_f32; rows.len()];
                    self.backend.read(view.rows(0, rows.len())?, bytemuck::cast_slice_mut(&mut values))?;
                    Ok::<_, backend::Error>(values)
                });
                let (loss, below) = (loss?, below?);
                scores.extend(
                    (0..rows.len()).map(|i| Score { log_likelihood: -loss[i], is_greedy: below[i] >= 0.0 }),
                );
                Ok(())
            })?;
        }
        Ok(scores)
    }

    /// The logits `[rows, vocabulary]` behind rows of the step of that many tokens, on the last stage; the same on all of its ranks.
    ///
    /// # Errors
    /// Those of the backend and the group.
    ///
    /// # Panics
    /// If this is not the last stage.
    pub fn logits(&self, tokens: usize, rows: &[u32]) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(rows.len() * self.options.vocabulary);
        for rows in rows.chunks(self.options.rows) {
            self.head(tokens, rows, |_, _, room| {
                let own = room.kept.logits.whole();
                let whole = match &room.whole {
                    Some(whole) => {
                        self.tensor.gather(own, whole.view())?;
                        whole.view()
                    }
                    None => own,
                };
                let mut values = vec![0.0_f32; whole.len()];
                self.backend.read(whole, bytemuck::cast_slice_mut(&mut values))?;
                let (r, v) = (room.dims.tokens(), room.dims.vocab);
                for row in 0..rows.len() {
                    let parts = values.chunks_exact(r * v).flat_map(|part| &part[row * v..(row + 1) * v]);
                    logits.extend(parts.take(self.options.vocabulary));
                }
                Ok(())
            })?;
        }
        Ok(logits)
    }

    /// The logits of rows of a step, and what the caller does with them.
    fn head(
        &self,
        tokens: usize,
        rows: &[u32],
        with: impl FnOnce(&Head, &Context<'_, B>, &Rows<B>) -> Result<()>,
    ) -> Result<()> {
        let (step, head) = (self.step(tokens), self.head.as_ref().expect("the last stage has the head"));
        let room =
            self.rows.iter().find(|room| room.dims.tokens() >= rows.len()).expect("at most so many rows");
        let mut index = rows.to_vec();
        index.resize(room.dims.tokens(), u32::MAX);
        self.backend.write(room.index.view(), bytemuck::cast_slice(&index))?;
        let (tokens, y) = (room.index.view(), room.x.view());
        self.backend.embedding(Embedding { tokens, table: step.stream.view(), first_row: 0, y })?;
        let cx = self.context(room.dims, step, false);
        head.logits(&cx, y, &room.kept)?;
        if let Some(marks) = &self.no_token {
            for (x, bias) in room.kept.logits.iter().zip(marks.iter()) {
                self.backend.bias_add(BiasAdd { x, bias })?;
            }
        }
        with(head, &cx, room)
    }

    fn context<'c>(&'c self, dims: Dims, step: &'c Step<B>, cached: bool) -> Context<'c, B> {
        let cache =
            || Cached { cache: &self.cache, places: step.places.view(), positions: step.positions.view() };
        Context {
            backend: self.backend,
            tensor: &self.tensor,
            parameters: &self.parameters,
            scratch: &step.scratch,
            config: &self.config,
            shard: &self.shard,
            dims,
            dropout_seed: None,
            first_sample: 0,
            cached: cached.then(cache),
        }
    }
}

impl<B: Backend> Step<B> {
    fn new(backend: &B, shard: &Shard, dims: Dims, length: usize) -> Result<Self> {
        let (t, a, d) = (dims.tokens(), dims.heads, dims.head_dim);
        let tensor = |dtype, extents: &[usize]| backend.alloc(Class::Activations, dtype, Shape::new(extents));
        Ok(Self {
            scratch: Scratch::of_forward(backend, &dims, &[Need::AttentionCached { t, a, s: length, d }])?,
            stream: tensor(dims.dtype, &[t, dims.hidden])?,
            places: tensor(DType::U32, &[t, 4])?,
            positions: tensor(DType::U32, &[t])?,
            embedding: shard.first.then(|| EmbeddingActivations::new(backend, &dims)).transpose()?,
            block: BlockActivations::new(backend, &dims, Recompute::None, Class::Activations)?,
            dims,
        })
    }
}

impl<B: Backend> Rows<B> {
    fn new(backend: &B, shard: &Shard, dims: Dims) -> Result<Self> {
        let r = dims.tokens();
        let tensor = |dtype, extents: &[usize]| backend.alloc(Class::Activations, dtype, Shape::new(extents));
        let all = [shard.tensor_size, dims.chunks, r, dims.vocab];
        Ok(Self {
            index: tensor(DType::U32, &[r])?,
            x: tensor(dims.dtype, &[r, dims.hidden])?,
            kept: HeadActivations::new(backend, &dims)?,
            whole: (shard.tensor_size > 1).then(|| tensor(DType::F32, &all)).transpose()?,
            dims,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_ends_at_the_most_and_wastes_a_third_at_most() {
        assert_eq!(ladder(1), [1]);
        assert_eq!(ladder(13), [1, 2, 3, 4, 6, 8, 12, 13]);
        for most in 1..300 {
            let sizes = ladder(most);
            assert_eq!(sizes.last(), Some(&most));
            assert!(
                sizes.windows(2).all(|pair| pair[0] < pair[1] && 2 * pair[1] <= 3 * pair[0] + 1),
                "{sizes:?}"
            );
        }
    }
}
