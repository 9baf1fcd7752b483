//! A transformer layer: `x1 = x + attention(ln1(x))`, `y = x1 + mlp(ln2(x1))`, each branch with its dropout (pre-LayerNorm, MT-NLG section 2).

use backend::ops::{BiasDropoutResidual, Dropout};
use backend::{Backend, Class, Result, Shape, Tensor, View};

use super::{
    AttentionActivations, Chunked, Context, Dims, DropoutSite, Mlp, MlpActivations, Norm, NormActivations,
    SelfAttention,
};
use crate::{ParameterStore, Recompute};

/// One transformer layer.
#[derive(Clone, Debug)]
pub struct Block {
    layer: usize,
    ln1: Norm,
    attention: SelfAttention,
    ln2: Norm,
    mlp: Mlp,
}

/// What the backward needs beside the input.
pub struct BlockActivations<B: Backend> {
    ln1: NormActivations<B>,
    attention: AttentionActivations<B>,
    /// `[t', h]`: the residual stream between the branches.
    middle: Tensor<B::Buffer>,
    ln2: NormActivations<B>,
    mlp: MlpActivations<B>,
}

/// What the weights' gradients need beside the activations: the gradients of what the weights' products gave.
pub struct BlockGradients<B: Backend> {
    /// `[t, h]`: of the MLP's branch, every token's.
    d_mlp: Tensor<B::Buffer>,
    /// `[t, f]` a chunk.
    d_ffn: Chunked<B>,
    /// `[t, h]`: of the attention's branch, every token's.
    d_attention: Tensor<B::Buffer>,
    /// `[t, 3 a d]` a chunk.
    d_qkv: Chunked<B>,
}

impl<B: Backend> BlockActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, recompute: Recompute, class: Class) -> Result<Self> {
        let shape = Shape::new(&[dims.own_tokens(), dims.hidden]);
        Ok(Self {
            ln1: NormActivations::new(backend, dims, class)?,
            attention: AttentionActivations::new(backend, dims, recompute, class)?,
            middle: backend.alloc(class, dims.dtype, shape)?,
            ln2: NormActivations::new(backend, dims, class)?,
            mlp: MlpActivations::new(backend, dims, class)?,
        })
    }
}

impl<B: Backend> BlockGradients<B> {
    /// Memory for one layer.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, class: Class) -> Result<Self> {
        let (t, chunks, dtype) = (dims.tokens(), dims.chunks, dims.dtype);
        let branch = || backend.alloc(class, dtype, Shape::new(&[t, dims.hidden]));
        Ok(Self {
            d_mlp: branch()?,
            d_ffn: Chunked::new(backend, class, dtype, chunks, &[t, dims.ffn])?,
            d_attention: branch()?,
            d_qkv: Chunked::new(backend, class, dtype, chunks, &[t, 3 * dims.attention()])?,
        })
    }
}

impl Block {
    /// Layer `layer` of the model.
    pub fn new<B: Backend>(store: &ParameterStore<B>, layer: usize) -> Self {
        let norm = |name: &str| Norm::new(store, &format!("layers.{layer}.{name}"));
        Self {
            layer,
            ln1: norm("ln1"),
            attention: SelfAttention::new(store, layer),
            ln2: norm("ln2"),
            mlp: Mlp::new(store, layer),
        }
    }

    /// `x` to `y`, both `[t', h]`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &BlockActivations<B>,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        let branch = cx.scratch.branch.view();
        let middle = kept.middle.view();

        self.attend(cx, x, kept)?;
        let normed = cx.gathered(kept.ln2.y.view(), cx.scratch.whole.view())?;
        self.mlp.forward(cx, normed, &kept.mlp, branch)?;
        cx.backend.bias_dropout_residual(BiasDropoutResidual {
            x: branch,
            bias: self.mlp.bias(cx),
            residual: middle,
            y,
            mask: cx.mask(DropoutSite::MlpOutput(self.layer)),
        })
    }

    /// The forward once more, as far as the backward needs it: not the product whose output only goes on.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn recompute<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &BlockActivations<B>,
    ) -> Result<()> {
        self.attend(cx, x, kept)?;
        let normed = cx.gathered(kept.ln2.y.view(), cx.scratch.whole.view())?;
        self.mlp.rise(cx, normed, &kept.mlp)
    }

    /// `middle = x + attention(ln1(x))`, and its LayerNorm.
    fn attend<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &BlockActivations<B>,
    ) -> Result<()> {
        let branch = cx.scratch.branch.view();
        let middle = kept.middle.view();

        self.ln1.forward(cx, x, &kept.ln1)?;
        let normed = cx.gathered(kept.ln1.y.view(), cx.scratch.whole.view())?;
        self.attention.forward(cx, normed, &kept.attention, branch)?;
        cx.backend.bias_dropout_residual(BiasDropoutResidual {
            x: branch,
            bias: self.attention.bias(cx),
            residual: x,
            y: middle,
            mask: cx.mask(DropoutSite::AttentionOutput(self.layer)),
        })?;
        self.ln2.forward(cx, middle, &kept.ln2)
    }

    /// `d [t', h]` goes in as the gradient of the output and comes out as that of the input `x`: both branches add to the residual's gradient. What the
    /// weights' gradients need is left in `gradients`; those of biases and LayerNorms are accumulated.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &BlockActivations<B>,
        gradients: &BlockGradients<B>,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        let BlockGradients { d_mlp, d_ffn, d_attention, d_qkv } = gradients;
        let d_norm = cx.scratch.d_norm.view();

        let d_mlp = self.dropped(cx, DropoutSite::MlpOutput(self.layer), d, d_mlp.view())?;
        self.mlp.backward_input(cx, &kept.mlp, d_mlp, d_ffn, d_norm)?;
        self.ln2.backward(cx, kept.middle.view(), &kept.ln2, d_norm, d, true)?;

        let d_attention =
            self.dropped(cx, DropoutSite::AttentionOutput(self.layer), d, d_attention.view())?;
        let d_attended = &cx.scratch.d_attended;
        self.attention.backward_input(cx, &kept.attention, d_attention, d_attended, d_qkv, d_norm)?;
        self.ln1.backward(cx, x, &kept.ln1, d_norm, d, true)
    }

    /// The matrices' gradients, from what [`backward_input`](Self::backward_input) left.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &BlockActivations<B>,
        gradients: &BlockGradients<B>,
    ) -> Result<()> {
        let BlockGradients { d_mlp, d_ffn, d_attention, d_qkv } = gradients;
        let whole = cx.scratch.whole.view();
        let x = cx.gathered(kept.ln2.y.view(), whole)?;
        self.mlp.backward_weight(cx, x, &kept.mlp, d_mlp.view(), d_ffn)?;
        let x = cx.gathered(kept.ln1.y.view(), whole)?;
        self.attention.backward_weight(cx, x, &kept.attention, d_attention.view(), d_qkv)
    }

    /// The gradient behind a branch's dropout, every token's, in `whole [t, h]`: `d [t', h]` masked as the forward was.
    fn dropped<'a, B: Backend>(
        &self,
        cx: &Context<'_, B>,
        site: DropoutSite,
        d: View<'_, B::Buffer>,
        whole: View<'a, B::Buffer>,
    ) -> Result<View<'a, B::Buffer>> {
        let own = cx.own(whole)?;
        match cx.mask(site) {
            Some(mask) => cx.backend.dropout(Dropout { x: d, y: own, mask })?,
            None => cx.backend.copy(d, own)?,
        }
        cx.gathered(own, whole)
    }
}
