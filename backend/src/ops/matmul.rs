use super::{apart, axes, dtype, float, shape};
use crate::{Buffer, DType, Error, Result, View};

/// Matrix product: `c = alpha op(a) op(b) + beta c`, for each of a batch of matrices.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `a` | `[m, k]`, or `[k, m]` with `trans_a` | float | |
/// | `b` | `[k, n]`, or `[n, k]` with `trans_b` | as `a` | |
/// | `c` | `[m, n]` | as `a`, or f32 | read only where `beta` is not 0 |
///
/// A leading axis, the same on all three, is the batch. Accumulation is fp32; with `k = 0` the product is 0. `beta = 0` overwrites whatever `c` held, NaN
/// included.
pub struct Matmul<'a, B> {
    /// Left factor.
    pub a: View<'a, B>,
    /// Right factor.
    pub b: View<'a, B>,
    /// Result.
    pub c: View<'a, B>,
    /// Whether `a` is stored transposed.
    pub trans_a: bool,
    /// Whether `b` is stored transposed.
    pub trans_b: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what `c` held.
    pub beta: f32,
}

/// Extents of a [`Matmul`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulDims {
    /// Matrices in the batch.
    pub batch: usize,
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// Length of each dot product.
    pub k: usize,
}

impl<B: Buffer> Matmul<'_, B> {
    /// Checks the operands.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Overlap`].
    pub fn check(&self) -> Result<MatmulDims> {
        const OP: &str = "matmul";
        let matrix = |name, view: View<'_, B>| match *view.extents() {
            [rows, columns] => Ok((None, rows, columns)),
            [batch, rows, columns] => Ok((Some(batch), rows, columns)),
            _ => Err(Error::Shape {
                op: OP,
                tensor: name,
                expected: "[rows, columns] or [batch, rows, columns]".to_owned(),
                got: view.shape(),
            }),
        };
        let (batch, a0, a1) = matrix("a", self.a)?;
        let (_, b0, b1) = matrix("b", self.b)?;
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let n = if self.trans_b { b0 } else { b1 };
        let b_extents = if self.trans_b { [n, k] } else { [k, n] };
        match batch {
            None => {
                shape(OP, "b", self.b, &b_extents)?;
                shape(OP, "c", self.c, &[m, n])?;
            }
            Some(batch) => {
                shape(OP, "b", self.b, &[batch, b_extents[0], b_extents[1]])?;
                shape(OP, "c", self.c, &[batch, m, n])?;
            }
        }
        float(OP, "a", self.a)?;
        dtype(OP, "b", self.b, self.a.dtype())?;
        if self.c.dtype() != DType::F32 {
            dtype(OP, "c", self.c, self.a.dtype())?;
        }
        apart(OP, ("c", self.c), &[("a", self.a), ("b", self.b)], false)?;
        Ok(MatmulDims { batch: batch.unwrap_or(1), m, n, k })
    }
}

/// A linear layer: `y = x w^T + bias` (weights as `[out, in]`, PyTorch's and Megatron's order).
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `x` | `[t, k]` | float |
/// | `w` | `[n, k]` | as `x` |
/// | `bias` | `[n]` | as `x` |
/// | `y` | `[t, n]` | as `x` |
pub struct MatmulBias<'a, B> {
    /// Input.
    pub x: View<'a, B>,
    /// Weights.
    pub w: View<'a, B>,
    /// Bias.
    pub bias: View<'a, B>,
    /// Output.
    pub y: View<'a, B>,
}

impl<'a, B: Buffer> MatmulBias<'a, B> {
    /// The product without its bias.
    pub fn product(&self) -> Matmul<'a, B> {
        Matmul { a: self.x, b: self.w, c: self.y, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 }
    }

    /// Checks the operands.
    ///
    /// # Errors
    /// As [`Matmul::check`].
    pub fn check(&self) -> Result<MatmulDims> {
        const OP: &str = "matmul_bias";
        let [_, _] = axes(OP, "x", "[t, k]", self.x)?;
        let dims = self.product().check()?;
        shape(OP, "bias", self.bias, &[dims.n])?;
        dtype(OP, "bias", self.bias, self.x.dtype())?;
        apart(OP, ("y", self.y), &[("bias", self.bias)], false)?;
        Ok(dims)
    }
}

/// A linear layer and its activation: `pre = x w^T + bias`, `y = gelu(pre)`; `pre` is kept for the backward.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `x` | `[t, k]` | float |
/// | `w` | `[n, k]` | as `x` |
/// | `bias` | `[n]` | as `x` |
/// | `pre`, `y` | `[t, n]` | as `x` |
pub struct MatmulBiasGelu<'a, B> {
    /// Input.
    pub x: View<'a, B>,
    /// Weights.
    pub w: View<'a, B>,
    /// Bias.
    pub bias: View<'a, B>,
    /// What the activation was applied to.
    pub pre: View<'a, B>,
    /// Output.
    pub y: View<'a, B>,
}

impl<'a, B: Buffer> MatmulBiasGelu<'a, B> {
    /// The product without bias and activation.
    pub fn product(&self) -> Matmul<'a, B> {
        Matmul { a: self.x, b: self.w, c: self.pre, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 }
    }

    /// Checks the operands.
    ///
    /// # Errors
    /// As [`Matmul::check`].
    pub fn check(&self) -> Result<MatmulDims> {
        const OP: &str = "matmul_bias_gelu";
        let dims = MatmulBias { x: self.x, w: self.w, bias: self.bias, y: self.pre }.check()?;
        shape(OP, "y", self.y, &[dims.m, dims.n])?;
        dtype(OP, "y", self.y, self.x.dtype())?;
        let inputs = [("x", self.x), ("w", self.w), ("bias", self.bias), ("pre", self.pre)];
        apart(OP, ("y", self.y), &inputs, false)?;
        Ok(dims)
    }
}
