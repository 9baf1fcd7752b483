//! A pipeline stage: its layers in a row, forward and backward of one microbatch at a time.

use std::sync::Arc;

use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use crate::layers::{
    Block, BlockActivations, BlockGradients, Context, Dims, EmbeddingActivations, Head, HeadActivations,
    HeadGradients, Scratch, TokenEmbedding,
};
use crate::{GptConfig, Half, ParameterStore, Recompute, Shard, StoreOptions, TensorGroup};

/// How a stage computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageOptions {
    /// Sequences of a microbatch, b.
    pub batch: usize,
    /// Tokens of a sequence, s.
    pub seq: usize,
    /// Type of a chunk's partial sums: f32 where a layout must not be told from the bits, else that of activations.
    pub partial: DType,
    /// What the backward computes again.
    pub recompute: Recompute,
    /// Whether full recomputation computes a layer's output too, which no backward needs (Megatron-LM does).
    pub recompute_outputs: bool,
    /// How parameters are kept; activations are of their type.
    pub store: StoreOptions,
}

impl StageOptions {
    /// The whole model in f32, as quick as it goes, for microbatches of `batch` sequences of `seq` tokens.
    pub fn plain(batch: usize, seq: usize) -> Self {
        Self {
            batch,
            seq,
            partial: DType::F32,
            recompute: Recompute::None,
            recompute_outputs: false,
            store: StoreOptions { dtype: DType::F32, parts: 1, tree: None, gradients: true },
        }
    }

    /// Extents of a microbatch on a rank.
    pub fn dims(&self, config: &GptConfig, shard: &Shard) -> Dims {
        Dims::new(config, shard, (self.batch, self.seq), [self.store.dtype, self.partial])
    }
}

/// What a stage is told of a microbatch.
#[derive(Clone, Copy, Debug)]
pub struct Microbatch {
    /// Its place among those of the replica's step.
    pub index: usize,
    /// Global index of its first sample.
    pub first_sample: u64,
    /// Seed of the dropout masks; `None` in validation and inference.
    pub dropout_seed: Option<u64>,
    /// Weight of each token's loss in the objective: one over the tokens of the global batch.
    pub weight: f32,
    /// What the gradients are multiplied with, so that f16 can hold them.
    pub loss_scale: f32,
}

/// What one microbatch keeps on its way through a stage; a stage owns as many as its schedule has in flight.
pub struct Activations<B: Backend> {
    /// The residual stream, `[t', h]` each: the input of each layer, and on the last stage the output of the last one.
    stream: Vec<Tensor<B::Buffer>>,
    embedding: Option<EmbeddingActivations<B>>,
    /// Empty where layers are computed again.
    blocks: Vec<BlockActivations<B>>,
    head: Option<HeadActivations<B>>,
}

impl<B: Backend> Activations<B> {
    /// `[t', h]`: where a stage that is not the first receives its input.
    pub fn input(&self) -> View<'_, B::Buffer> {
        self.stream[0].view()
    }

    /// `[t]`: where the first stage's input tokens go.
    pub fn tokens(&self) -> Option<View<'_, B::Buffer>> {
        self.embedding.as_ref().map(|kept| kept.tokens.view())
    }

    /// `[t]`: where the last stage's targets go.
    pub fn targets(&self) -> Option<View<'_, B::Buffer>> {
        self.head.as_ref().map(|kept| kept.targets.view())
    }

    /// `[t, v]`: the last stage's f32 logits, the columns of this rank's chunk `chunk`; spent by the backward.
    pub fn logits(&self, chunk: usize) -> Option<View<'_, B::Buffer>> {
        self.head.as_ref().map(|kept| kept.logits.at(chunk))
    }
}

/// What one microbatch keeps between the two halves of its backward, where a schedule runs them apart.
pub struct Deferred<B: Backend> {
    blocks: Vec<BlockGradients<B>>,
    head: Option<HeadGradients<B>>,
    /// `[t', h]`: the gradient of the embedding.
    embedding: Option<Tensor<B::Buffer>>,
}

/// One rank's part of the model, ready to run microbatches of one size.
pub struct Stage<'a, B: Backend> {
    backend: &'a B,
    tensor: TensorGroup<'a, B::Buffer>,
    config: GptConfig,
    shard: Shard,
    dims: Dims,
    recompute: Recompute,
    recompute_outputs: bool,
    parameters: Arc<ParameterStore<B>>,
    scratch: Arc<Scratch<B>>,
    embedding: Option<TokenEmbedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
    /// `[t', h]`: gradient of the residual stream, between stages and layers.
    gradient: Tensor<B::Buffer>,
}

impl<'a, B: Backend> Stage<'a, B> {
    /// The shard's layers; parameters are 0 until they are initialised or loaded. `scratch` is made for these options' extents and may be shared by the
    /// stages of a rank.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        tensor: TensorGroup<'a, B::Buffer>,
        config: &GptConfig,
        shard: &Shard,
        options: &StageOptions,
        scratch: Arc<Scratch<B>>,
    ) -> Result<Self> {
        let parameters = Arc::new(ParameterStore::new(backend, config, shard, options.store)?);
        let dims = options.dims(config, shard);
        let stream = Shape::new(&[dims.own_tokens(), dims.hidden]);
        Ok(Self {
            tensor,
            config: config.clone(),
            shard: shard.clone(),
            dims,
            recompute: options.recompute,
            recompute_outputs: options.recompute_outputs,
            scratch,
            embedding: shard.first.then(|| TokenEmbedding::new(&parameters)),
            blocks: shard.layers.clone().map(|layer| Block::new(&parameters, layer)).collect(),
            head: shard.last.then(|| Head::new(&parameters)),
            gradient: backend.alloc(Class::Workspace, dims.dtype, stream)?,
            parameters,
            backend,
        })
    }

    /// Memory for one microbatch in flight.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn activations(&self) -> Result<Activations<B>> {
        let (backend, dims) = (self.backend, &self.dims);
        let shape = Shape::new(&[dims.own_tokens(), dims.hidden]);
        let stream = |_| backend.alloc(Class::Activations, dims.dtype, shape);
        let block = |_: &Block| BlockActivations::new(backend, dims, self.recompute, Class::Activations);
        let kept = if self.recompute == Recompute::Full { &[] } else { &self.blocks[..] };
        let streams = self.blocks.len() + usize::from(self.shard.last);
        Ok(Activations {
            stream: (0..streams).map(stream).collect::<Result<_>>()?,
            embedding: self
                .embedding
                .as_ref()
                .map(|_| EmbeddingActivations::new(backend, dims))
                .transpose()?,
            blocks: kept.iter().map(block).collect::<Result<_>>()?,
            head: self.head.as_ref().map(|_| HeadActivations::new(backend, dims)).transpose()?,
        })
    }

    /// Memory for one microbatch between the two halves of its backward.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn deferred(&self) -> Result<Deferred<B>> {
        let (backend, dims, class) = (self.backend, &self.dims, Class::Activations);
        let stream = Shape::new(&[dims.own_tokens(), dims.hidden]);
        Ok(Deferred {
            blocks: self
                .blocks
                .iter()
                .map(|_| BlockGradients::new(backend, dims, class))
                .collect::<Result<_>>()?,
            head: self.head.as_ref().map(|_| HeadGradients::new(backend, dims, class)).transpose()?,
            embedding: self
                .embedding
                .as_ref()
                .map(|_| backend.alloc(class, dims.dtype, stream))
                .transpose()?,
        })
    }

    /// The parameters and their gradients.
    pub fn parameters(&self) -> &ParameterStore<B> {
        &self.parameters
    }

    /// A share of them, for who computes with the same weights.
    pub fn shared_parameters(&self) -> Arc<ParameterStore<B>> {
        Arc::clone(&self.parameters)
    }

    /// The rank's part of the model.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Extents of a microbatch.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// The ranks that share each layer.
    pub fn tensor(&self) -> &TensorGroup<'a, B::Buffer> {
        &self.tensor
    }

    /// f32 memory for an operation of the caller's, between two calls of this stage.
    pub fn workspace(&self) -> View<'_, B::Buffer> {
        self.scratch.workspace.view()
    }

    /// `[t', h]`: what a stage that is not the last sends on, until its next forward.
    pub fn output(&self) -> View<'_, B::Buffer> {
        self.scratch.output.view()
    }

    /// `[t', h]`: where a stage that is not the last receives the gradient of its output, and where every stage leaves that of its input.
    pub fn gradient(&self) -> View<'_, B::Buffer> {
        self.gradient.view()
    }

    fn context(&self, microbatch: &Microbatch) -> Context<'_, B> {
        Context {
            backend: self.backend,
            tensor: &self.tensor,
            parameters: &self.parameters,
            scratch: &self.scratch,
            config: &self.config,
            shard: &self.shard,
            dims: self.dims,
            dropout_seed: microbatch.dropout_seed,
            first_sample: microbatch.first_sample,
            cached: None,
        }
    }

    /// From the tokens or the received input to the output; on the last stage to the loss, whose weighted sum goes to `loss [1]`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward(
        &self,
        kept: &Activations<B>,
        microbatch: &Microbatch,
        loss: View<'_, B::Buffer>,
    ) -> Result<()> {
        let cx = self.context(microbatch);
        self.trunk(&cx, kept)?;
        match (&self.head, &kept.head) {
            (Some(head), Some(kept_head)) => {
                head.forward(&cx, self.after(kept, self.blocks.len() - 1), kept_head, microbatch.weight, loss)
            }
            _ => Ok(()),
        }
    }

    /// The residual stream behind layer `i`: the next one's input, kept, or the stage's output, which is free again once it is sent.
    fn after<'v>(&'v self, kept: &'v Activations<B>, i: usize) -> View<'v, B::Buffer> {
        kept.stream.get(i + 1).map_or_else(|| self.scratch.output.view(), Tensor::view)
    }

    /// What layer `i` keeps: its own, or the memory that all layers share.
    fn block<'v>(&'v self, kept: &'v Activations<B>, i: usize) -> &'v BlockActivations<B> {
        let shared = || self.scratch.recomputed.as_ref().expect("room for what is computed again");
        kept.blocks.get(i).unwrap_or_else(shared)
    }

    /// Embedding and layers.
    fn trunk(&self, cx: &Context<'_, B>, kept: &Activations<B>) -> Result<()> {
        if let (Some(embedding), Some(kept_embedding)) = (&self.embedding, &kept.embedding) {
            embedding.forward(cx, kept_embedding, kept.input())?;
        }
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(cx, kept.stream[i].view(), self.block(kept, i), self.after(kept, i))?;
        }
        Ok(())
    }

    /// From the gradient of the output (on the last stage: of the loss) to that of the input in [`gradient`](Self::gradient); parameters' gradients are
    /// accumulated. Uses up the microbatch's activations. `each` is called behind each layer, last to first, with its place in the stage.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward(
        &self,
        kept: &Activations<B>,
        microbatch: &Microbatch,
        each: impl Fn(usize) -> Result<()>,
    ) -> Result<()> {
        let cx = self.context(microbatch);
        let (parameters, scratch, d) = (&self.parameters, &self.scratch, self.gradient.view());
        for half in [Half::Input, Half::Weight] {
            parameters.begin_microbatch(self.backend, half)?;
        }
        if let (Some(head), Some(kept_head)) = (&self.head, &kept.head) {
            let x = self.after(kept, self.blocks.len() - 1);
            let weight = microbatch.weight * microbatch.loss_scale;
            head.backward_input(&cx, x, kept_head, &scratch.head, weight, d)?;
            head.backward_weight(&cx, kept_head, &scratch.head)?;
        }
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let (x, kept_block) = (kept.stream[i].view(), self.block(kept, i));
            match kept.blocks.is_empty() {
                // The stage's own output has been handed on.
                true if self.recompute_outputs => block.forward(&cx, x, kept_block, scratch.output.view())?,
                true => block.recompute(&cx, x, kept_block)?,
                false => {}
            }
            block.backward_input(&cx, x, kept_block, &scratch.block, d)?;
            block.backward_weight(&cx, kept_block, &scratch.block)?;
            each(i)?;
        }
        if let (Some(embedding), Some(kept_embedding)) = (&self.embedding, &kept.embedding) {
            embedding.backward_input(&cx, d)?;
            embedding.backward_weight(&cx, kept_embedding, d)?;
        }
        for half in [Half::Input, Half::Weight] {
            parameters.end_microbatch(self.backend, &self.tensor, half, microbatch.index)?;
        }
        Ok(())
    }

    /// The first half of [`backward`](Self::backward): the gradient of the input and those of biases and LayerNorms. Nothing may be computed again.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input(
        &self,
        kept: &Activations<B>,
        microbatch: &Microbatch,
        deferred: &Deferred<B>,
    ) -> Result<()> {
        debug_assert_eq!(self.recompute, Recompute::None);
        let cx = self.context(microbatch);
        let d = self.gradient.view();
        self.parameters.begin_microbatch(self.backend, Half::Input)?;
        if let (Some(head), Some(kept_head), Some(gradients)) = (&self.head, &kept.head, &deferred.head) {
            let x = self.after(kept, self.blocks.len() - 1);
            let weight = microbatch.weight * microbatch.loss_scale;
            head.backward_input(&cx, x, kept_head, gradients, weight, d)?;
        }
        for (i, block) in self.blocks.iter().enumerate().rev() {
            block.backward_input(&cx, kept.stream[i].view(), &kept.blocks[i], &deferred.blocks[i], d)?;
        }
        if let (Some(embedding), Some(room)) = (&self.embedding, &deferred.embedding) {
            embedding.backward_input(&cx, d)?;
            self.backend.copy(d, room.view())?;
        }
        self.parameters.end_microbatch(self.backend, &self.tensor, Half::Input, microbatch.index)
    }

    /// The second half: the matrices' gradients. Uses up the microbatch's activations.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_weight(
        &self,
        kept: &Activations<B>,
        microbatch: &Microbatch,
        deferred: &Deferred<B>,
    ) -> Result<()> {
        let cx = self.context(microbatch);
        self.parameters.begin_microbatch(self.backend, Half::Weight)?;
        if let (Some(head), Some(kept_head), Some(gradients)) = (&self.head, &kept.head, &deferred.head) {
            head.backward_weight(&cx, kept_head, gradients)?;
        }
        for (i, block) in self.blocks.iter().enumerate().rev() {
            block.backward_weight(&cx, &kept.blocks[i], &deferred.blocks[i])?;
        }
        if let (Some(embedding), Some(kept_embedding), Some(d)) =
            (&self.embedding, &kept.embedding, &deferred.embedding)
        {
            embedding.backward_weight(&cx, kept_embedding, d.view())?;
        }
        self.parameters.end_microbatch(self.backend, &self.tensor, Half::Weight, microbatch.index)
    }
}
