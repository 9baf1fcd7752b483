//! Linear layers cut over the tensor group (Shoeybi et al. 2019, section 3). Weights are `[out, in]`.

use backend::ops::{BiasBackward, Matmul, MatmulBias, MatmulBiasGelu};
use backend::{Backend, Result, View};

use super::Context;
use crate::ParameterStore;
use crate::store::Handle;

/// Cut by output columns: each rank computes its own, from the whole input; the gradient of the input is the sum over ranks.
#[derive(Clone, Copy, Debug)]
pub struct ColumnParallel {
    weight: Handle,
    bias: Handle,
}

/// Cut by input columns: each rank multiplies its own, and the output is the sum over ranks. The bias is added once, behind the sum, by the operation
/// that also drops out and adds the residual.
#[derive(Clone, Copy, Debug)]
pub struct RowParallel {
    weight: Handle,
    bias: Handle,
}

/// The handles of `<name>.weight` and `<name>.bias`.
fn pair<B: Backend>(store: &ParameterStore<B>, name: &str) -> [Handle; 2] {
    ["weight", "bias"].map(|part| {
        store.find(&format!("{name}.{part}")).expect("a shard holds the parameters of its own layers")
    })
}

impl ColumnParallel {
    /// The layer whose parameters are `<name>.weight`, `<name>.bias`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        let [weight, bias] = pair(store, name);
        Self { weight, bias }
    }

    /// `y = x W^T + bias`: `x [t, in]`, `y [t, out / tp]`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        let (w, bias) = (cx.parameters.value(self.weight), cx.parameters.value(self.bias));
        cx.backend.matmul_bias(MatmulBias { x, w, bias, y })
    }

    /// `pre = x W^T + bias`, `y = gelu(pre)`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn forward_gelu<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        pre: View<'_, B::Buffer>,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        let (w, bias) = (cx.parameters.value(self.weight), cx.parameters.value(self.bias));
        cx.backend.matmul_bias_gelu(MatmulBiasGelu { x, w, bias, pre, y })
    }

    /// `dW += dy^T x`, `dbias += sum_t dy`, `dx = sum over ranks of dy W`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        dy: View<'_, B::Buffer>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        input_gradient(cx, self.weight, dy, dx)?;
        cx.tensor.sum(dx)?;
        weight_gradients(cx, self.weight, self.bias, x, dy)
    }
}

impl RowParallel {
    /// The layer whose parameters are `<name>.weight`, `<name>.bias`.
    pub fn new<B: Backend>(store: &ParameterStore<B>, name: &str) -> Self {
        let [weight, bias] = pair(store, name);
        Self { weight, bias }
    }

    /// `y = sum over ranks of x W^T`, without the bias: `x [t, in / tp]`, `y [t, out]`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        let b = cx.parameters.value(self.weight);
        cx.backend.matmul(Matmul { a: x, b, c: y, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 })?;
        cx.tensor.sum(y)
    }

    /// The bias, which the caller adds behind the sum.
    pub fn bias<'a, B: Backend>(&self, cx: &Context<'a, B>) -> View<'a, B::Buffer> {
        cx.parameters.value(self.bias)
    }

    /// `dW += dy^T x`, `dbias += sum_t dy`, `dx = dy W`: this rank's columns, complete.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        dy: View<'_, B::Buffer>,
        dx: View<'_, B::Buffer>,
    ) -> Result<()> {
        input_gradient(cx, self.weight, dy, dx)?;
        weight_gradients(cx, self.weight, self.bias, x, dy)
    }
}

fn input_gradient<B: Backend>(
    cx: &Context<'_, B>,
    weight: Handle,
    dy: View<'_, B::Buffer>,
    dx: View<'_, B::Buffer>,
) -> Result<()> {
    let b = cx.parameters.value(weight);
    cx.backend.matmul(Matmul { a: dy, b, c: dx, trans_a: false, trans_b: false, alpha: 1.0, beta: 0.0 })
}

fn weight_gradients<B: Backend>(
    cx: &Context<'_, B>,
    weight: Handle,
    bias: Handle,
    x: View<'_, B::Buffer>,
    dy: View<'_, B::Buffer>,
) -> Result<()> {
    let c = cx.parameters.gradient(weight);
    cx.backend.matmul(Matmul { a: dy, b: x, c, trans_a: true, trans_b: false, alpha: 1.0, beta: 1.0 })?;
    cx.backend.bias_backward(BiasBackward {
        dy,
        dbias: cx.parameters.gradient(bias),
        workspace: cx.workspace(),
    })
}
