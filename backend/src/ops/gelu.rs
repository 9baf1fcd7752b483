use super::{apart, axes, dtype, float, shape};
use crate::{Buffer, Result, View};

/// The tanh form of GELU (Hendrycks & Gimpel 2016): `y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x`, `y` | any, alike | float, alike | may be the same view |
pub struct Gelu<'a, B> {
    /// Input.
    pub x: View<'a, B>,
    /// Output.
    pub y: View<'a, B>,
}

impl<B: Buffer> Gelu<'_, B> {
    /// Checks the operands; returns the number of elements.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap).
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "gelu";
        float(OP, "x", self.x)?;
        shape(OP, "y", self.y, self.x.extents())?;
        dtype(OP, "y", self.y, self.x.dtype())?;
        apart(OP, ("y", self.y), &[("x", self.x)], true)?;
        Ok(self.x.len())
    }
}

/// Gradient of [`Gelu`]: `dx = gelu'(x) dy`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x`, `dy`, `dx` | any, alike | float, alike | `dx` may be `dy` or `x` |
pub struct GeluBackward<'a, B> {
    /// The forward's input.
    pub x: View<'a, B>,
    /// Upstream gradient.
    pub dy: View<'a, B>,
    /// Gradient of the input.
    pub dx: View<'a, B>,
}

impl<B: Buffer> GeluBackward<'_, B> {
    /// Checks the operands; returns the number of elements.
    ///
    /// # Errors
    /// As [`Gelu::check`].
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "gelu_backward";
        float(OP, "x", self.x)?;
        for (name, view) in [("dy", self.dy), ("dx", self.dx)] {
            shape(OP, name, view, self.x.extents())?;
            dtype(OP, name, view, self.x.dtype())?;
        }
        apart(OP, ("dx", self.dx), &[("x", self.x), ("dy", self.dy)], true)?;
        Ok(self.x.len())
    }
}

/// Bias and activation in one pass: `x[t, :] += bias` (kept for the backward), `y = gelu(x)`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x` | `[t, n]` | float | in place |
/// | `bias` | `[n]` | as `x` | |
/// | `y` | `[t, n]` | as `x` | |
pub struct BiasGelu<'a, B> {
    /// Pre-activation, without its bias before and with it after.
    pub x: View<'a, B>,
    /// Bias.
    pub bias: View<'a, B>,
    /// Output.
    pub y: View<'a, B>,
}

impl<B: Buffer> BiasGelu<'_, B> {
    /// Checks the operands; returns `[t, n]`.
    ///
    /// # Errors
    /// As [`Gelu::check`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "bias_gelu";
        let [t, n] = axes(OP, "x", "[t, n]", self.x)?;
        float(OP, "x", self.x)?;
        shape(OP, "bias", self.bias, &[n])?;
        shape(OP, "y", self.y, &[t, n])?;
        for (name, view) in [("bias", self.bias), ("y", self.y)] {
            dtype(OP, name, view, self.x.dtype())?;
        }
        apart(OP, ("x", self.x), &[("bias", self.bias)], false)?;
        apart(OP, ("y", self.y), &[("x", self.x), ("bias", self.bias)], false)?;
        Ok([t, n])
    }
}
