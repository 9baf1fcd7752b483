//! A pipeline stage: its layers in a row, forward and backward of one microbatch at a time.

use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use crate::layers::{
    Block, BlockActivations, Context, Dims, EmbeddingActivations, Head, HeadActivations, Scratch,
    TokenEmbedding,
};
use crate::{GptConfig, ParameterStore, Shard, TensorGroup};

/// What a stage is told of a microbatch.
#[derive(Clone, Copy, Debug)]
pub struct Microbatch {
    /// Global index of its first sample.
    pub first_sample: u64,
    /// Seed of the dropout masks; `None` in validation and inference.
    pub dropout_seed: Option<u64>,
    /// Weight of each token's loss in the objective: one over the tokens of the global batch.
    pub weight: f32,
}

/// What one microbatch keeps on its way through a stage; a stage owns as many as its schedule has in flight.
pub struct Activations<B: Backend> {
    /// The residual stream, `[t, h]` each: what the stage receives, then the output of each layer.
    stream: Vec<Tensor<B::Buffer>>,
    embedding: Option<EmbeddingActivations<B>>,
    blocks: Vec<BlockActivations<B>>,
    head: Option<HeadActivations<B>>,
}

impl<B: Backend> Activations<B> {
    /// `[t, h]`: where a stage that is not the first receives its input.
    pub fn input(&self) -> View<'_, B::Buffer> {
        self.stream[0].view()
    }

    /// `[t, h]`: what a stage that is not the last sends on.
    pub fn output(&self) -> View<'_, B::Buffer> {
        self.stream[self.stream.len() - 1].view()
    }

    /// `[t]`: where the first stage's input tokens go.
    pub fn tokens(&self) -> Option<View<'_, B::Buffer>> {
        self.embedding.as_ref().map(|kept| kept.tokens.view())
    }

    /// `[t]`: where the last stage's targets go.
    pub fn targets(&self) -> Option<View<'_, B::Buffer>> {
        self.head.as_ref().map(|kept| kept.targets.view())
    }

    /// `[t, v]`: the last stage's logits, this rank's columns; spent by the backward.
    pub fn logits(&self) -> Option<View<'_, B::Buffer>> {
        self.head.as_ref().map(|kept| kept.logits.view())
    }
}

/// One rank's part of the model, ready to run microbatches of one size.
pub struct Stage<'a, B: Backend> {
    backend: &'a B,
    tensor: TensorGroup<'a, B::Buffer>,
    config: GptConfig,
    shard: Shard,
    dims: Dims,
    parameters: ParameterStore<B>,
    scratch: Scratch<B>,
    embedding: Option<TokenEmbedding>,
    blocks: Vec<Block>,
    head: Option<Head>,
    /// `[t, h]`: gradient of the residual stream, between stages and layers.
    gradient: Tensor<B::Buffer>,
    /// `[1]`: sum of the weighted losses.
    loss: Tensor<B::Buffer>,
}

impl<'a, B: Backend> Stage<'a, B> {
    /// The shard's layers, for microbatches of `batch` sequences of `seq` tokens; parameters are 0 until they are initialised or loaded.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        tensor: TensorGroup<'a, B::Buffer>,
        config: &GptConfig,
        shard: &Shard,
        batch: usize,
        seq: usize,
    ) -> Result<Self> {
        let parameters = ParameterStore::new(backend, config, shard)?;
        let dims = Dims::new(config, shard, batch, seq);
        let stage = Self {
            tensor,
            config: config.clone(),
            shard: shard.clone(),
            dims,
            scratch: Scratch::new(backend, &dims, parameters.len())?,
            embedding: shard.first.then(|| TokenEmbedding::new(&parameters)),
            blocks: shard.layers.clone().map(|layer| Block::new(&parameters, layer)).collect(),
            head: shard.last.then(|| Head::new(&parameters)),
            gradient: backend.alloc(
                Class::Workspace,
                DType::F32,
                Shape::new(&[dims.tokens(), dims.hidden]),
            )?,
            loss: backend.alloc(Class::Workspace, DType::F32, Shape::new(&[1]))?,
            parameters,
            backend,
        };
        stage.reset_loss()?;
        Ok(stage)
    }

    /// Memory for one microbatch in flight.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn activations(&self) -> Result<Activations<B>> {
        let (backend, dims) = (self.backend, &self.dims);
        let stream =
            |_| backend.alloc(Class::Activations, DType::F32, Shape::new(&[dims.tokens(), dims.hidden]));
        Ok(Activations {
            stream: (0..=self.blocks.len()).map(stream).collect::<Result<_>>()?,
            embedding: self.embedding.map(|_| EmbeddingActivations::new(backend, dims)).transpose()?,
            blocks: self
                .blocks
                .iter()
                .map(|_| BlockActivations::new(backend, dims))
                .collect::<Result<_>>()?,
            head: self.head.map(|_| HeadActivations::new(backend, dims)).transpose()?,
        })
    }

    /// The parameters and their gradients.
    pub fn parameters(&self) -> &ParameterStore<B> {
        &self.parameters
    }

    /// The rank's part of the model.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Extents of a microbatch.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// f32 memory for an operation of the caller's, between two calls of this stage.
    pub fn workspace(&self) -> View<'_, B::Buffer> {
        self.scratch.workspace.view()
    }

    /// `[t, h]`: where a stage that is not the last receives the gradient of its output, and where every stage leaves that of its input.
    pub fn gradient(&self) -> View<'_, B::Buffer> {
        self.gradient.view()
    }

    /// `[1]`: the weighted losses since the last [`reset_loss`](Self::reset_loss), on the last stage; elsewhere 0.
    pub fn loss(&self) -> View<'_, B::Buffer> {
        self.loss.view()
    }

    /// Begins a new sum of losses.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn reset_loss(&self) -> Result<()> {
        self.backend.fill(self.loss.view(), 0.0)
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
        }
    }

    /// From the tokens or the received input to the output; on the last stage to the loss, whose weighted sum is added to [`loss`](Self::loss).
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward(&self, kept: &Activations<B>, microbatch: &Microbatch) -> Result<()> {
        let cx = self.context(microbatch);
        self.trunk(&cx, kept)?;
        match (&self.head, &kept.head) {
            (Some(head), Some(kept_head)) => {
                head.forward(&cx, kept.output(), kept_head, microbatch.weight, self.loss.view())
            }
            _ => Ok(()),
        }
    }

    /// As [`forward`](Self::forward), but the last stage stops at the [`logits`](Activations::logits).
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn infer(&self, kept: &Activations<B>) -> Result<()> {
        let cx = self.context(&Microbatch { first_sample: 0, dropout_seed: None, weight: 0.0 });
        self.trunk(&cx, kept)?;
        match (&self.head, &kept.head) {
            (Some(head), Some(kept_head)) => head.logits(&cx, kept.output(), kept_head),
            _ => Ok(()),
        }
    }

    /// Embedding and layers.
    fn trunk(&self, cx: &Context<'_, B>, kept: &Activations<B>) -> Result<()> {
        if let (Some(embedding), Some(kept_embedding)) = (&self.embedding, &kept.embedding) {
            embedding.forward(cx, kept_embedding, kept.input())?;
        }
        for (i, (block, kept_block)) in self.blocks.iter().zip(&kept.blocks).enumerate() {
            block.forward(cx, kept.stream[i].view(), kept_block, kept.stream[i + 1].view())?;
        }
        Ok(())
    }

    /// From the gradient of the output (on the last stage: of the loss) to that of the input in [`gradient`](Self::gradient); parameters' gradients are
    /// accumulated. Uses up the microbatch's activations.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward(&self, kept: &Activations<B>, microbatch: &Microbatch) -> Result<()> {
        let cx = self.context(microbatch);
        let d = self.gradient.view();
        if let (Some(head), Some(kept_head)) = (&self.head, &kept.head) {
            head.backward(&cx, kept.output(), kept_head, microbatch.weight, d)?;
        }
        for (i, (block, kept_block)) in self.blocks.iter().zip(&kept.blocks).enumerate().rev() {
            block.backward(&cx, kept.stream[i].view(), kept_block, d)?;
        }
        match (&self.embedding, &kept.embedding) {
            (Some(embedding), Some(kept_embedding)) => embedding.backward(&cx, kept_embedding, d),
            _ => Ok(()),
        }
    }
}
