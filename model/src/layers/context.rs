//! What every layer's forward and backward are given beside their operands.

use backend::ops::{AttentionDropout, DropoutMask, Scratch as Need};
use backend::philox::Stream;
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use crate::{GptConfig, ParameterStore, Shard, TensorGroup};

/// Extents of a microbatch on this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Sequences, b.
    pub batch: usize,
    /// Tokens a sequence, s.
    pub seq: usize,
    /// Hidden size, h.
    pub hidden: usize,
    /// Heads on this rank, a.
    pub heads: usize,
    /// Head size, d.
    pub head_dim: usize,
    /// FFN columns on this rank, f.
    pub ffn: usize,
    /// Vocabulary rows on this rank, v.
    pub vocab: usize,
}

impl Dims {
    /// Extents for microbatches of `batch` sequences of `seq` tokens.
    pub fn new(config: &GptConfig, shard: &Shard, batch: usize, seq: usize) -> Self {
        Self {
            batch,
            seq,
            hidden: config.hidden,
            heads: shard.local(config.heads),
            head_dim: config.head_dim(),
            ffn: shard.local(config.ffn_hidden),
            vocab: shard.local(config.vocab),
        }
    }

    /// Tokens of a microbatch, t.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Columns of the attention's input on this rank, a d.
    pub fn attention(&self) -> usize {
        self.heads * self.head_dim
    }
}

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

/// Memory that lives within one layer's forward or backward, shared by all layers of a stage.
pub struct Scratch<B: Backend> {
    /// `[t, h]`: a residual branch before its bias.
    pub branch: Tensor<B::Buffer>,
    /// `[t, h]`: gradient of a LayerNorm's output.
    pub d_norm: Tensor<B::Buffer>,
    /// `[t, h]`: gradient of a branch behind its dropout.
    pub d_branch: Tensor<B::Buffer>,
    /// `[t, a d]`: gradient of the attention's output.
    pub d_attention: Tensor<B::Buffer>,
    /// `[t, 3 a d]`: gradient of queries, keys and values.
    pub d_qkv: Tensor<B::Buffer>,
    /// `[t, f]`: gradient of the MLP's inner columns.
    pub d_ffn: Tensor<B::Buffer>,
    /// What operations ask for.
    pub workspace: Tensor<B::Buffer>,
}

impl<B: Backend> Scratch<B> {
    /// Memory for microbatches of these extents.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, parameters: usize) -> Result<Self> {
        let Dims { batch: b, seq: s, hidden: h, heads: a, head_dim: d, ffn: f, vocab: v } = *dims;
        let t = dims.tokens();
        let needs = [
            Need::LayerNormBackward { t, h },
            Need::BiasBackward { t, n: f },
            Need::BiasBackward { t, n: 3 * a * d },
            Need::BiasBackward { t, n: h },
            Need::BiasBackward { t: b, n: s * h },
            Need::Attention { b, s, a, d },
            Need::AttentionBackward { b, s, a, d },
            Need::EmbeddingBackward { t, v, h },
            Need::Sum { n: t },
            Need::Sum { n: parameters },
        ];
        let workspace = needs.iter().map(|need| backend.workspace(*need)).max().unwrap_or(0).max(1);
        let tensor = |extents: &[usize]| backend.alloc(Class::Workspace, DType::F32, Shape::new(extents));
        Ok(Self {
            branch: tensor(&[t, h])?,
            d_norm: tensor(&[t, h])?,
            d_branch: tensor(&[t, h])?,
            d_attention: tensor(&[t, a * d])?,
            d_qkv: tensor(&[t, 3 * a * d])?,
            d_ffn: tensor(&[t, f])?,
            workspace: tensor(&[workspace])?,
        })
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

    /// The mask of a dropout on `[t, h]`.
    pub fn mask(&self, site: DropoutSite) -> Option<DropoutMask> {
        let first = self.first_sample * (self.dims.seq * self.dims.hidden) as u64;
        self.stream(site).map(|stream| DropoutMask { p: self.config.dropout, stream, first })
    }

    /// The mask of the dropout on a layer's attention probabilities.
    pub fn attention_mask(&self, layer: usize) -> Option<AttentionDropout> {
        self.stream(DropoutSite::Probabilities(layer)).map(|stream| AttentionDropout {
            p: self.config.dropout,
            stream,
            first_sample: self.first_sample,
            first_head: self.shard.tensor_rank * self.dims.heads,
            heads: self.config.heads,
        })
    }
}
