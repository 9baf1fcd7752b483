use super::{apart, axes, dtype, float, shape, workspace};
use crate::{Buffer, DType, Result, View};

/// Adds a row to every row: `x[t, :] += bias`. Also the position table's: `x` as `[b, s h]`, `bias` as `[s h]`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x` | `[t, n]` | float | in place |
/// | `bias` | `[n]` | as `x` | |
pub struct BiasAdd<'a, B> {
    /// Rows.
    pub x: View<'a, B>,
    /// What is added to each.
    pub bias: View<'a, B>,
}

impl<B: Buffer> BiasAdd<'_, B> {
    /// Checks the operands; returns `[t, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap).
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "bias_add";
        let [t, n] = axes(OP, "x", "[t, n]", self.x)?;
        shape(OP, "bias", self.bias, &[n])?;
        float(OP, "x", self.x)?;
        dtype(OP, "bias", self.bias, self.x.dtype())?;
        apart(OP, ("x", self.x), &[("bias", self.bias)], false)?;
        Ok([t, n])
    }
}

/// Gradient of a bias: `dbias += sum over t of dy[t, :]`, in a fixed order.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `dy` | `[t, n]` | float | |
/// | `dbias` | `[n]` | f32 | accumulated |
pub struct BiasBackward<'a, B> {
    /// Upstream gradient.
    pub dy: View<'a, B>,
    /// Gradient of the bias.
    pub dbias: View<'a, B>,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> BiasBackward<'_, B> {
    /// Checks the operands; returns `[t, n]`.
    ///
    /// # Errors
    /// As [`BiasAdd::check`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "bias_backward";
        let [t, n] = axes(OP, "dy", "[t, n]", self.dy)?;
        shape(OP, "dbias", self.dbias, &[n])?;
        float(OP, "dy", self.dy)?;
        dtype(OP, "dbias", self.dbias, DType::F32)?;
        apart(OP, ("dbias", self.dbias), &[("dy", self.dy)], false)?;
        workspace(OP, self.workspace, &[("dy", self.dy), ("dbias", self.dbias)])?;
        Ok([t, n])
    }
}
