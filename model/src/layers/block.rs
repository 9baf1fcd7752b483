//! A transformer layer: `x1 = x + attention(ln1(x))`, `y = x1 + mlp(ln2(x1))`, each branch with its dropout (pre-LayerNorm, MT-NLG section 2).

use backend::ops::{BiasDropoutResidual, Dropout};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{
    AttentionActivations, Context, Dims, DropoutSite, Mlp, MlpActivations, Norm, NormActivations,
    SelfAttention,
};
use crate::ParameterStore;

/// One transformer layer.
#[derive(Clone, Copy, Debug)]
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
    /// `[t, h]`: the residual stream between the branches.
    middle: Tensor<B::Buffer>,
    ln2: NormActivations<B>,
    mlp: MlpActivations<B>,
}

impl<B: Backend> BlockActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let shape = Shape::new(&[dims.tokens(), dims.hidden]);
        Ok(Self {
            ln1: NormActivations::new(backend, dims)?,
            attention: AttentionActivations::new(backend, dims)?,
            middle: backend.alloc(Class::Activations, DType::F32, shape)?,
            ln2: NormActivations::new(backend, dims)?,
            mlp: MlpActivations::new(backend, dims)?,
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

    /// `x` to `y`, both `[t, h]`.
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

        self.ln1.forward(cx, x, &kept.ln1)?;
        self.attention.forward(cx, kept.ln1.y.view(), &kept.attention, branch)?;
        cx.backend.bias_dropout_residual(BiasDropoutResidual {
            x: branch,
            bias: self.attention.bias(cx),
            residual: x,
            y: middle,
            mask: cx.mask(DropoutSite::AttentionOutput(self.layer)),
        })?;

        self.ln2.forward(cx, middle, &kept.ln2)?;
        self.mlp.forward(cx, kept.ln2.y.view(), &kept.mlp, branch)?;
        cx.backend.bias_dropout_residual(BiasDropoutResidual {
            x: branch,
            bias: self.mlp.bias(cx),
            residual: middle,
            y,
            mask: cx.mask(DropoutSite::MlpOutput(self.layer)),
        })
    }

    /// `d [t, h]` goes in as the gradient of the output and comes out as that of the input `x`: both branches add to the residual's gradient.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &BlockActivations<B>,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        let d_norm = cx.scratch.d_norm.view();

        let d_branch = self.dropped(cx, DropoutSite::MlpOutput(self.layer), d)?;
        self.mlp.backward(cx, kept.ln2.y.view(), &kept.mlp, d_branch, d_norm)?;
        self.ln2.backward(cx, kept.middle.view(), &kept.ln2, d_norm, d, true)?;

        let d_branch = self.dropped(cx, DropoutSite::AttentionOutput(self.layer), d)?;
        self.attention.backward(cx, kept.ln1.y.view(), &kept.attention, d_branch, d_norm)?;
        self.ln1.backward(cx, x, &kept.ln1, d_norm, d, true)
    }

    /// The gradient behind a branch's dropout: `d` itself where nothing was dropped.
    fn dropped<'a, B: Backend>(
        &self,
        cx: &Context<'a, B>,
        site: DropoutSite,
        d: View<'a, B::Buffer>,
    ) -> Result<View<'a, B::Buffer>> {
        let Some(mask) = cx.mask(site) else { return Ok(d) };
        let d_branch = cx.scratch.d_branch.view();
        cx.backend.dropout(Dropout { x: d, y: d_branch, mask })?;
        Ok(d_branch)
    }
}
