//! Causal self-attention, cut by heads.

use backend::ops::{Attention, AttentionBackward, AttentionCached};
use backend::{Backend, Class, DType, Result, View};

use super::{Cached, Chunked, ColumnParallel, Context, Dims, RowParallel};
use crate::{ParameterStore, Recompute};

/// `out(attention(qkv(x)))`: the projection to queries, keys and values is column-parallel by heads, the one back row-parallel.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    layer: usize,
    qkv: ColumnParallel,
    out: RowParallel,
}

/// The result of the attention's core.
pub struct AttentionCore<B: Backend> {
    /// `[t, a d]` a chunk.
    attended: Chunked<B>,
    /// `[b, a, s]` a chunk.
    lse: Chunked<B>,
}

/// What the backward needs beside the input.
pub struct AttentionActivations<B: Backend> {
    /// `[t, 3 a d]` a chunk, seen by the attention as `[b, s, a, 3, d]`.
    qkv: Chunked<B>,
    /// `None` where it is computed again.
    core: Option<AttentionCore<B>>,
}

impl<B: Backend> AttentionCore<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, class: Class) -> Result<Self> {
        let Dims { batch, seq, heads, chunks, dtype, .. } = *dims;
        Ok(Self {
            attended: Chunked::new(backend, class, dtype, chunks, &[dims.tokens(), dims.attention()])?,
            lse: Chunked::new(backend, class, DType::F32, chunks, &[batch, heads, seq])?,
        })
    }
}

impl<B: Backend> AttentionActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, recompute: Recompute, class: Class) -> Result<Self> {
        let shape = [dims.tokens(), 3 * dims.attention()];
        let keeps = recompute == Recompute::None;
        Ok(Self {
            qkv: Chunked::new(backend, class, dims.dtype, dims.chunks, &shape)?,
            core: keeps.then(|| AttentionCore::new(backend, dims, class)).transpose()?,
        })
    }

    /// Where the core's result stands: kept, or in the memory that all layers share.
    fn core<'v>(&'v self, cx: &Context<'v, B>) -> &'v AttentionCore<B> {
        let shared = || cx.scratch.core.as_ref().expect("room for what is computed again");
        self.core.as_ref().unwrap_or_else(shared)
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

    /// `branch = out(attention(qkv(x)))`, without the output's bias: `x [t, h]`, `branch [t', h]`.
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
        self.qkv.forward(cx, x, &kept.qkv)?;
        self.core(cx, kept)?;
        self.out.forward(cx, &kept.core(cx).attended, branch)
    }

    /// `softmax(q k^T / sqrt(d)) v`, head by head.
    fn core<B: Backend>(&self, cx: &Context<'_, B>, kept: &AttentionActivations<B>) -> Result<()> {
        if let Some(cached) = &cx.cached {
            return self.core_cached(cx, cached, kept);
        }
        let core = kept.core(cx);
        for chunk in 0..kept.qkv.len() {
            cx.backend.attention(Attention {
                qkv: kept.qkv.at(chunk).reshape(packed(&cx.dims))?,
                out: core.attended.at(chunk).reshape(by_heads(&cx.dims))?,
                lse: core.lse.at(chunk),
                scale: scale(&cx.dims),
                dropout: cx.attention_mask(self.layer, chunk),
                workspace: cx.workspace(),
            })?;
        }
        Ok(())
    }

    /// The same over a cache, to which the tokens are added.
    fn core_cached<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        cached: &Cached<'_, B>,
        kept: &AttentionActivations<B>,
    ) -> Result<()> {
        let core = kept.core(cx);
        let (t, a, d) = (cx.dims.tokens(), cx.dims.heads, cx.dims.head_dim);
        for chunk in 0..kept.qkv.len() {
            cx.backend.attention_cached(AttentionCached {
                qkv: kept.qkv.at(chunk).reshape([t, a, 3, d])?,
                places: cached.places,
                cache: cached.cache.at(self.layer, chunk),
                out: core.attended.at(chunk).reshape([t, a, d])?,
                scale: scale(&cx.dims),
                workspace: cx.workspace(),
            })?;
        }
        Ok(())
    }

    /// The output's bias.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        self.out.bias(cx)
    }

    /// Gradient of the input into `dx [t', h]`, that of queries, keys and values into `d_qkv`, from every token's `d_branch [t, h]`; biases' gradients
    /// accumulated. `d_attended` is room for the gradient of the core's output.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &AttentionActivations<B>,
        d_branch: View<'_, B::Buffer>,
        d_attended: &Chunked<B>,
        d_qkv: &Chunked<B>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        if kept.core.is_none() {
            self.core(cx, kept)?;
        }
        let core = kept.core(cx);
        self.out.backward_input(cx, d_branch, d_attended)?;
        for chunk in 0..kept.qkv.len() {
            cx.backend.attention_backward(AttentionBackward {
                qkv: kept.qkv.at(chunk).reshape(packed(&cx.dims))?,
                out: core.attended.at(chunk).reshape(by_heads(&cx.dims))?,
                lse: core.lse.at(chunk),
                dout: d_attended.at(chunk).reshape(by_heads(&cx.dims))?,
                dqkv: d_qkv.at(chunk).reshape(packed(&cx.dims))?,
                scale: scale(&cx.dims),
                dropout: cx.attention_mask(self.layer, chunk),
                workspace: cx.workspace(),
            })?;
        }
        self.qkv.backward_input(cx, d_qkv, dx)
    }

    /// The weights' gradients, from what [`backward_input`](Self::backward_input) left.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &AttentionActivations<B>,
        d_branch: View<'_, B::Buffer>,
        d_qkv: &Chunked<B>,
    ) -> Result<()> {
        self.out.backward_weight(cx, &kept.core(cx).attended, d_branch)?;
        self.qkv.backward_weight(cx, x, d_qkv)
    }
}
