//! Causal self-attention, cut by heads.

use backend::ops::{Attention, AttentionBackward};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{ColumnParallel, Context, Dims, RowParallel};
use crate::ParameterStore;

/// `out(attention(qkv(x)))`: the projection to queries, keys and values is column-parallel by heads, the one back row-parallel.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    layer: usize,
    qkv: ColumnParallel,
    out: RowParallel,
}

/// What the backward needs beside the input.
pub struct AttentionActivations<B: Backend> {
    /// `[t, 3 a d]`, seen by the attention as `[b, s, a, 3, d]`.
    qkv: Tensor<B::Buffer>,
    /// `[t, a d]`.
    attended: Tensor<B::Buffer>,
    /// `[b, a, s]`.
    lse: Tensor<B::Buffer>,
}

impl<B: Backend> AttentionActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let tensor = |extents: &[usize]| backend.alloc(Class::Activations, DType::F32, Shape::new(extents));
        let (t, n) = (dims.tokens(), dims.attention());
        Ok(Self {
            qkv: tensor(&[t, 3 * n])?,
            attended: tensor(&[t, n])?,
            lse: tensor(&[dims.batch, dims.heads, dims.seq])?,
        })
    }
}

/// Extents of packed queries, keys and values.
fn packed(dims: &Dims) -> [usize; 5] {
    [dims.batch, dims.seq, dims.heads, 3, dims.head_dim]
}

/// Extents of the attention's output.
fn by_heads(dims: &Dims) -> [usize; 4] {
    [dims.batch, dims.seq, dims.heads, dims.head_dim]
}

/// Factor of the scores, `1 / sqrt(d)`.
fn scale(dims: &Dims) -> f32 {
    (1.0 / (dims.head_dim as f64).sqrt()) as f32
}

impl SelfAttention {
    /// The attention of layer `layer`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, layer: usize) -> Self {
        let name = |part: &str| format!("layers.{layer}.attention.{part}");
        Self {
            layer,
            qkv: ColumnParallel::new(store, &name("qkv")),
            out: RowParallel::new(store, &name("out")),
        }
    }

    /// `branch = out(attention(qkv(x)))`, without the output's bias.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &AttentionActivations<B>,
        branch: View<'_, B::Buffer>,
    ) -> Result<()> {
        self.qkv.forward(cx, x, kept.qkv.view())?;
        cx.backend.attention(Attention {
            qkv: kept.qkv.view().reshape(packed(&cx.dims))?,
            out: kept.attended.view().reshape(by_heads(&cx.dims))?,
            lse: kept.lse.view(),
            scale: scale(&cx.dims),
            dropout: cx.attention_mask(self.layer),
            workspace: cx.workspace(),
        })?;
        self.out.forward(cx, kept.attended.view(), branch)
    }

    /// The output's bias.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        self.out.bias(cx)
    }

    /// Gradient of the input into `dx`, parameters' gradients accumulated.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &AttentionActivations<B>,
        d_branch: View<'_, B::Buffer>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        let (d_attended, d_qkv) = (cx.scratch.d_attention.view(), cx.scratch.d_qkv.view());
        self.out.backward(cx, kept.attended.view(), d_branch, d_attended)?;
        cx.backend.attention_backward(AttentionBackward {
            qkv: kept.qkv.view().reshape(packed(&cx.dims))?,
            out: kept.attended.view().reshape(by_heads(&cx.dims))?,
            lse: kept.lse.view(),
            dout: d_attended.reshape(by_heads(&cx.dims))?,
            dqkv: d_qkv.reshape(packed(&cx.dims))?,
            scale: scale(&cx.dims),
            dropout: cx.attention_mask(self.layer),
            workspace: cx.workspace(),
        })?;
        self.qkv.backward(cx, x, d_qkv, dx)
    }
}
