//! The MLP: `down(gelu(up(x)))`.

use backend::ops::GeluBackward;
use backend::{Backend, Class, Result, View};

use super::{Chunked, ColumnParallel, Context, Dims, RowParallel};
use crate::ParameterStore;

/// Two linears round a GELU: the first column-parallel, so that the GELU needs no communication, the second row-parallel.
#[derive(Clone, Debug)]
pub struct Mlp {
    up: ColumnParallel,
    down: RowParallel,
}

/// What the backward needs beside the input.
pub struct MlpActivations<B: Backend> {
    /// `[t, f]` a chunk: the GELU's input.
    pre: Chunked<B>,
    /// `[t, f]` a chunk: its output.
    post: Chunked<B>,
}

impl<B: Backend> MlpActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, class: Class) -> Result<Self> {
        let tensor = || Chunked::new(backend, class, dims.dtype, dims.chunks, &[dims.tokens(), dims.ffn]);
        Ok(Self { pre: tensor()?, post: tensor()? })
    }
}

impl Mlp {
    /// The MLP of layer `layer`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, layer: usize) -> Self {
        let name = |part: &str| format!("layers.{layer}.mlp.{part}");
        Self { up: ColumnParallel::new(store, &name("up")), down: RowParallel::new(store, &name("down")) }
    }

    /// `gelu(up(x))`: `x [t, h]`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn rise<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &MlpActivations<B>,
    ) -> Result<()> {
        self.up.forward_gelu(cx, x, &kept.pre, &kept.post)
    }

    /// `branch = down(gelu(up(x)))`, without the output's bias.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &MlpActivations<B>,
        branch: View<'_, B::Buffer>,
    ) -> Result<()> {
        self.rise(cx, x, kept)?;
        self.down.forward(cx, &kept.post, branch)
    }

    /// The output's bias.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        self.down.bias(cx)
    }

    /// Gradient of the input into `dx [t', h]`, that of the inner columns into `d_ffn`, from every token's `d_branch [t, h]`; biases' gradients accumulated.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &MlpActivations<B>,
        d_branch: View<'_, B::Buffer>,
        d_ffn: &Chunked<B>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        self.down.backward_input(cx, d_branch, d_ffn)?;
        for (x, d) in kept.pre.iter().zip(d_ffn.iter()) {
            cx.backend.gelu_backward(GeluBackward { x, dy: d, dx: d })?;
        }
        self.up.backward_input(cx, d_ffn, dx)
    }

    /// The weights' gradients, from what [`backward_input`](Self::backward_input) left.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &MlpActivations<B>,
        d_branch: View<'_, B::Buffer>,
        d_ffn: &Chunked<B>,
    ) -> Result<()> {
        self.down.backward_weight(cx, &kept.post, d_branch)?;
        self.up.backward_weight(cx, x, d_ffn)
    }
}
