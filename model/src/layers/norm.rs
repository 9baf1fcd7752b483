//! LayerNorm with its parameters.

use backend::ops::{LayerNorm, LayerNormBackward};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{Context, Dims};
use crate::ParameterStore;
use crate::store::Handle;

/// A LayerNorm, repeated on every tensor rank.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    gamma: Handle,
    beta: Handle,
}

/// What its backward needs beside its input.
pub struct NormActivations<B: Backend> {
    /// `[t, h]`: the output, which the next layer's weight gradient needs.
    pub y: Tensor<B::Buffer>,
    mean: Tensor<B::Buffer>,
    rstd: Tensor<B::Buffer>,
}

impl<B: Backend> NormActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let tensor = |extents: &[usize]| backend.alloc(Class::Activations, DType::F32, Shape::new(extents));
        let t = dims.tokens();
        Ok(Self { y: tensor(&[t, dims.hidden])?, mean: tensor(&[t])?, rstd: tensor(&[t])? })
    }
}

impl Norm {
    /// The LayerNorm whose parameters are `<name>.gamma`, `<name>.beta`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        let [gamma, beta] = ["gamma", "beta"].map(|part| {
            store.find(&format!("{name}.{part}")).expect("a shard holds the parameters of its own layers")
        });
        Self { gamma, beta }
    }

    /// `kept.y = (x - mean) rstd gamma + beta`.
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

    /// Gradient of the input into `dx`, added to the residual's gradient there if `accumulate`; parameters' gradients accumulated.
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
        cx.backend.layernorm_backward(LayerNormBackward {
            x,
            gamma: cx.parameters.value(self.gamma),
            mean: kept.mean.view(),
            rstd: kept.rstd.view(),
            dy,
            dx,
            accumulate,
            dgamma: cx.parameters.gradient(self.gamma),
            dbeta: cx.parameters.gradient(self.beta),
            workspace: cx.workspace(),
        })
    }
}
