//! LayerNorm with its parameters.

use backend::ops::{LayerNorm, LayerNormBackward};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{Context, Dims, the};
use crate::ParameterStore;
use crate::store::Handle;

/// A LayerNorm, repeated on every tensor rank, of the tokens that the rank has.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    gamma: Handle,
    beta: Handle,
}

/// What its backward needs beside its input.
pub struct NormActivations<B: Backend> {
    /// `[t', h]`: the output, which the next layer's weight gradient needs.
    pub y: Tensor<B::Buffer>,
    /// `[t']` each.
    mean: Tensor<B::Buffer>,
    rstd: Tensor<B::Buffer>,
}

impl<B: Backend> NormActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, class: Class) -> Result<Self> {
        let tensor = |dtype, extents: &[usize]| backend.alloc(class, dtype, Shape::new(extents));
        let t = dims.own_tokens();
        Ok(Self {
            y: tensor(dims.dtype, &[t, dims.hidden])?,
            mean: tensor(DType::F32, &[t])?,
            rstd: tensor(DType::F32, &[t])?,
        })
    }
}

impl Norm {
    /// The LayerNorm whose parameters are `<name>.gamma`, `<name>.beta`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        let [gamma, beta] = ["gamma", "beta"].map(|part| the(store, &format!("{name}.{part}")));
        Self { gamma, beta }
    }

    /// `kept.y = (x - mean) rstd gamma + beta`: `x [t', h]`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &NormActivations<B>,
    ) -> Result<()> {
        cx.backend.layernorm(LayerNorm {
            x,
            gamma: cx.parameters.value(self.gamma),
            beta: cx.parameters.value(self.beta),
            eps: cx.config.layernorm_eps,
            y: kept.y.view(),
            mean: kept.mean.view(),
            rstd: kept.rstd.view(),
        })
    }

    /// Gradient of the input into `dx`, added to the residual's gradient there if `accumulate`; parameters' gradients accumulated, apart for each token
    /// chunk.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &NormActivations<B>,
        dy: View<'_, B::Buffer>,
        dx: View<'_, B::Buffer>,
        accumulate: bool,
    ) -> Result<()> {
        for chunk in 0..cx.dims.token_chunks {
            cx.backend.layernorm_backward(LayerNormBackward {
                x: cx.token_chunk(x, chunk)?,
                gamma: cx.parameters.value(self.gamma),
                mean: cx.token_chunk(kept.mean.view(), chunk)?,
                rstd: cx.token_chunk(kept.rstd.view(), chunk)?,
                dy: cx.token_chunk(dy, chunk)?,
                dx: cx.token_chunk(dx, chunk)?,
                accumulate,
                dgamma: cx.parameters.token_gradient(self.gamma, chunk),
                dbeta: cx.parameters.token_gradient(self.beta, chunk),
                workspace: cx.workspace(),
            })?;
        }
        Ok(())
    }
}
