//! The MLP: `down(gelu(up(x)))`.

use backend::ops::GeluBackward;
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{ColumnParallel, Context, Dims, RowParallel};
use crate::ParameterStore;

/// Two linears round a GELU: the first column-parallel, so that the GELU needs no communication, the second row-parallel.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    up: ColumnParallel,
    down: RowParallel,
}

/// What the backward needs beside the input.
pub struct MlpActivations<B: Backend> {
    /// `[t, f]`: the GELU's input.
    pre: Tensor<B::Buffer>,
    /// `[t, f]`: its output.
    post: Tensor<B::Buffer>,
}

impl<B: Backend> MlpActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let shape = Shape::new(&[dims.tokens(), dims.ffn]);
        let tensor = || backend.alloc(Class::Activations, DType::F32, shape);
        Ok(Self { pre: tensor()?, post: tensor()? })
    }
}

impl Mlp {
    /// The MLP of layer `layer`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, layer: usize) -> Self {
        let name = |part: &str| format!("layers.{layer}.mlp.{part}");
        Self { up: ColumnParallel::new(store, &name("up")), down: RowParallel::new(store, &name("down")) }
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
        self.up.forward_gelu(cx, x, kept.pre.view(), kept.post.view())?;
        self.down.forward(cx, kept.post.view(), branch)
    }

    /// The output's bias.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        self.down.bias(cx)
    }

    /// Gradient of the input into `dx`, parameters' gradients accumulated.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &MlpActivations<B>,
        d_branch: View<'_, B::Buffer>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        let d_ffn = cx.scratch.d_ffn.view();
        self.down.backward(cx, kept.post.view(), d_branch, d_ffn)?;
        cx.backend.gelu_backward(GeluBackward { x: kept.pre.view(), dy: d_ffn, dx: d_ffn })?;
        self.up.backward(cx, x, d_ffn, dx)
    }
}
