//! Linear layers cut over the tensor group (Shoeybi et al. 2019, section 3). Weights are `[out, in]`.
//!
//! Both are a sum or a row of chunks; a rank that holds several computes each one as a rank of its own would.

use backend::ops::{BiasBackward, Matmul, MatmulBias, MatmulBiasGelu};
use backend::{Backend, Result, View};

use super::{Chunked, Context, the};
use crate::ParameterStore;
use crate::store::Handle;

/// Cut by output columns: each chunk computes its own, from the whole input; the gradient of the input is the sum over chunks.
#[derive(Clone, Debug)]
pub struct ColumnParallel {
    weights: Vec<Handle>,
    biases: Vec<Handle>,
}

/// Cut by input columns: each chunk multiplies its own, and the output is the sum over chunks. The bias is added once, behind the sum, by the operation
/// that also drops out and adds the residual.
#[derive(Clone, Debug)]
pub struct RowParallel {
    weights: Vec<Handle>,
    bias: Handle,
}

impl ColumnParallel {
    /// The layer whose parameters are `<name>.weight`, `<name>.bias`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        let [weights, biases] = ["weight", "bias"].map(|part| store.find(&format!("{name}.{part}")));
        Self { weights, biases }
    }

    /// `y = x W^T + bias`: `x [t, in]`, `y [t, out / C]` a chunk.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        y: &Chunked<B>,
    ) -> Result<()> {
        for (y, (w, bias)) in y.iter().zip(self.weights.iter().zip(&self.biases)) {
            let [w, bias] = [w, bias].map(|&handle| cx.parameters.value(handle));
            cx.backend.matmul_bias(MatmulBias { x, w, bias, y })?;
        }
        Ok(())
    }

    /// `pre = x W^T + bias`, `y = gelu(pre)`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn forward_gelu<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        pre: &Chunked<B>,
        y: &Chunked<B>,
    ) -> Result<()> {
        for (i, (w, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            let [w, bias] = [w, bias].map(|&handle| cx.parameters.value(handle));
            cx.backend.matmul_bias_gelu(MatmulBiasGelu { x, w, bias, pre: pre.at(i), y: y.at(i) })?;
        }
        Ok(())
    }

    /// `dx = sum over chunks of dy W`, for this rank's tokens; `dbias += sum_t dy`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        dy: &Chunked<B>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        for (i, (dy, &w)) in dy.iter().zip(&self.weights).enumerate() {
            product(cx, dy, cx.parameters.value(w), cx.partial(i, dx), false)?;
        }
        cx.sum_partials(dx)?;
        for (dy, &bias) in dy.iter().zip(&self.biases) {
            let dbias = cx.parameters.gradient(bias);
            cx.backend.bias_backward(BiasBackward { dy, dbias, workspace: cx.workspace() })?;
        }
        Ok(())
    }

    /// `dW += dy^T x`: `x [t, in]`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        dy: &Chunked<B>,
    ) -> Result<()> {
        let mut chunks = dy.iter().zip(&self.weights);
        chunks.try_for_each(|(dy, &w)| weight_gradient(cx, dy, x, cx.parameters.gradient(w)))
    }
}

impl RowParallel {
    /// The layer whose parameters are `<name>.weight`, `<name>.bias`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        Self { weights: store.find(&format!("{name}.weight")), bias: the(store, &format!("{name}.bias")) }
    }

    /// `y = sum over chunks of x W^T`, for this rank's tokens, without the bias: `x [t, in / C]` a chunk.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: &Chunked<B>,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        for (i, (x, &w)) in x.iter().zip(&self.weights).enumerate() {
            product(cx, x, cx.parameters.value(w), cx.partial(i, y), true)?;
        }
        cx.sum_partials(y)
    }

    /// The bias, which the caller adds behind the sum.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        cx.parameters.value(self.bias)
    }

    /// `dx = dy W`: each chunk's columns, complete, from every token's `dy [t, out]`; `dbias += sum_t dy` over this rank's tokens, apart for each token
    /// chunk.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        dy: View<'_, B::Buffer>,
        dx: &Chunked<B>,
    ) -> Result<()> {
        for (dx, &w) in dx.iter().zip(&self.weights) {
            product(cx, dy, cx.parameters.value(w), dx, false)?;
        }
        let own = cx.own(dy)?;
        for chunk in 0..cx.dims.token_chunks {
            let dbias = cx.parameters.token_gradient(self.bias, chunk);
            let dy = cx.token_chunk(own, chunk)?;
            cx.backend.bias_backward(BiasBackward { dy, dbias, workspace: cx.workspace() })?;
        }
        Ok(())
    }

    /// `dW += dy^T x`: `dy [t, out]`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: &Chunked<B>,
        dy: View<'_, B::Buffer>,
    ) -> Result<()> {
        let mut chunks = x.iter().zip(&self.weights);
        chunks.try_for_each(|(x, &w)| weight_gradient(cx, dy, x, cx.parameters.gradient(w)))
    }
}

/// `c = a b`, or `a b^T`.
pub(super) fn product<B: Backend>(
    cx: &Context<'_, B>,
    a: View<'_, B::Buffer>,
    b: View<'_, B::Buffer>,
    c: View<'_, B::Buffer>,
    trans_b: bool,
) -> Result<()> {
    cx.backend.matmul(Matmul { a, b, c, trans_a: false, trans_b, alpha: 1.0, beta: 0.0 })
}

/// `c += a^T b`, in fp32.
pub(super) fn weight_gradient<B: Backend>(
    cx: &Context<'_, B>,
    a: View<'_, B::Buffer>,
    b: View<'_, B::Buffer>,
    c: View<'_, B::Buffer>,
) -> Result<()> {
    cx.backend.matmul(Matmul { a, b, c, trans_a: true, trans_b: false, alpha: 1.0, beta: 1.0 })
}
