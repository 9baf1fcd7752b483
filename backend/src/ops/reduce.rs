use super::{apart, dtype, float, shape, workspace};
use crate::{Buffer, DType, Result, View};

/// `out[0] = alpha sum(x) + beta out[0]`, in a fixed order.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `x` | any | float |
/// | `out` | `[1]` | f32 |
pub struct Sum<'a, B> {
    /// Summands.
    pub x: View<'a, B>,
    /// Result.
    pub out: View<'a, B>,
    /// Factor of the sum.
    pub alpha: f32,
    /// Factor of what `out` held; 0 overwrites it, NaN included.
    pub beta: f32,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> Sum<'_, B> {
    /// Checks the operands; returns the number of summands.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap).
    pub fn check(&self) -> Result<usize> {
        scalar("sum", self.x, self.out, self.workspace)
    }
}

/// `out[0] = sum(x^2) + beta out[0]`, in a fixed order: a term of the gradient norm.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `x` | any | float |
/// | `out` | `[1]` | f32 |
pub struct SumSquares<'a, B> {
    /// What is squared.
    pub x: View<'a, B>,
    /// Result.
    pub out: View<'a, B>,
    /// Factor of what `out` held; 0 overwrites it, NaN included.
    pub beta: f32,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> SumSquares<'_, B> {
    /// Checks the operands; returns the number of summands.
    ///
    /// # Errors
    /// As [`Sum::check`].
    pub fn check(&self) -> Result<usize> {
        scalar("sum_squares", self.x, self.out, self.workspace)
    }
}

fn scalar<B: Buffer>(
    op: &'static str,
    x: View<'_, B>,
    out: View<'_, B>,
    space: View<'_, B>,
) -> Result<usize> {
    float(op, "x", x)?;
    shape(op, "out", out, &[1])?;
    dtype(op, "out", out, DType::F32)?;
    apart(op, ("out", out), &[("x", x)], false)?;
    workspace(op, space, &[("x", x), ("out", out)])?;
    Ok(x.len())
}
