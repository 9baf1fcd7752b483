//! Memory that lives within one layer's forward or backward.

use backend::ops::Scratch as Need;
use backend::{Backend, Class, DType, Result, Shape, Tensor};

use super::{AttentionCore, BlockActivations, BlockGradients, Chunked, Dims, HeadGradients};
use crate::Recompute;

/// Memory shared by all layers of a rank, whichever stage they belong to.
pub struct Scratch<B: Backend> {
    /// `[t', h]`: a residual branch before its bias.
    pub branch: Tensor<B::Buffer>,
    /// `[t', h]`: gradient of a LayerNorm's output.
    pub d_norm: Tensor<B::Buffer>,
    /// `[t', h]`: the output of a stage that hands it on.
    pub output: Tensor<B::Buffer>,
    /// `[t, h]`: every token's rows, gathered from the ranks that share them out.
    pub whole: Tensor<B::Buffer>,
    /// `[t, h]` a chunk: partial sums over columns that the tensor group cuts.
    pub partial: Chunked<B>,
    /// `[t', h]`: a part of their sum, where it is not of the type of activations.
    pub total: Option<Tensor<B::Buffer>>,
    /// What operations ask for.
    pub workspace: Tensor<B::Buffer>,
    /// `[t, h]`: what is looked up in a further chunk of the table, where there are several.
    pub lookup: Option<Tensor<B::Buffer>>,
    /// `[t, a d]` a chunk: gradient of the attention's output.
    pub d_attended: Chunked<B>,
    /// Gradients between the halves of a layer's backward.
    pub block: BlockGradients<B>,
    /// Gradients between the halves of the head's backward.
    pub head: HeadGradients<B>,
    /// Output of the attention's core, where it is computed again.
    pub core: Option<AttentionCore<B>>,
    /// What a layer keeps, where it is computed again.
    pub recomputed: Option<BlockActivations<B>>,
}

impl<B: Backend> Scratch<B> {
    /// Memory for microbatches of these extents; `needs` are the caller's own.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, recompute: Recompute, needs: &[Need]) -> Result<Self> {
        Self::with_backward(backend, dims, recompute, needs, *dims)
    }

    /// Memory for forwards alone.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn of_forward(backend: &B, dims: &Dims, needs: &[Need]) -> Result<Self> {
        Self::with_backward(backend, dims, Recompute::None, needs, Dims { batch: 0, ..*dims })
    }

    /// With memory for backwards of the extents `back`.
    fn with_backward(
        backend: &B,
        dims: &Dims,
        recompute: Recompute,
        needs: &[Need],
        back: Dims,
    ) -> Result<Self> {
        let Dims { batch: b, seq: s, hidden: h, heads: a, head_dim: d, ffn: f, vocab: v, dtype, .. } = *dims;
        let (t, own) = (dims.tokens(), dims.own_tokens());
        let rows = own / dims.token_chunks;
        let forward_needs = [Need::Attention { b, s, a, d }, Need::Sum { n: t }];
        let backward_needs = [
            Need::LayerNormBackward { t: rows, h },
            Need::BiasBackward { t, n: f },
            Need::BiasBackward { t, n: 3 * a * d },
            Need::BiasBackward { t: rows, n: h },
            Need::BiasBackward { t: b, n: s * h },
            Need::AttentionBackward { b, s, a, d },
            Need::EmbeddingBackward { t, v, h },
        ];
        let backward_needs = if back.batch > 0 { &backward_needs[..] } else { &[] };
        let needs = forward_needs.iter().chain(backward_needs).chain(needs);
        let workspace = needs.map(|need| backend.workspace(*need)).max().unwrap_or(0).max(1);
        let tensor = |dtype, extents: &[usize]| backend.alloc(Class::Workspace, dtype, Shape::new(extents));
        let total = dims.partial != dtype && dims.token_parts > 1;
        Ok(Self {
            branch: tensor(dtype, &[own, h])?,
            d_norm: tensor(dtype, &[back.own_tokens(), h])?,
            output: tensor(dtype, &[own, h])?,
            whole: tensor(dtype, &[t, h])?,
            partial: Chunked::new(backend, Class::Workspace, dims.partial, dims.chunks, &[t, h])?,
            total: total.then(|| tensor(dims.partial, &[own, h])).transpose()?,
            workspace: tensor(DType::F32, &[workspace])?,
            lookup: (dims.chunks > 1).then(|| tensor(dtype, &[t, h])).transpose()?,
            d_attended: Chunked::new(backend, Class::Workspace, dtype, dims.chunks, &[back.tokens(), a * d])?,
            block: BlockGradients::new(backend, &back, Class::Workspace)?,
            head: HeadGradients::new(backend, &back, Class::Workspace)?,
            core: (recompute == Recompute::Selective)
                .then(|| AttentionCore::new(backend, dims, Class::Workspace))
                .transpose()?,
            recomputed: (recompute == Recompute::Full)
                .then(|| BlockActivations::new(backend, dims, Recompute::None, Class::Workspace))
                .transpose()?,
        })
    }
}
