use super::{DropoutMask, apart, axes, dtype, float, shape};
use crate::{Buffer, Result, View};

/// The end of a residual branch: `y = residual + dropout(x + bias)`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x` | `[t, h]` | float | scratch afterwards |
/// | `bias` | `[h]` | as `x` | |
/// | `residual`, `y` | `[t, h]` | as `x` | may be the same view |
///
/// Without a mask nothing is dropped. The backward is [`Dropout`](super::Dropout) of the upstream gradient, then
/// [`BiasBackward`](super::BiasBackward); the residual's gradient is the upstream one.
pub struct BiasDropoutResidual<'a, B> {
    /// The branch, before its bias.
    pub x: View<'a, B>,
    /// Bias.
    pub bias: View<'a, B>,
    /// What the branch is added to.
    pub residual: View<'a, B>,
    /// Output.
    pub y: View<'a, B>,
    /// What is kept; `None` keeps all.
    pub mask: Option<DropoutMask>,
}

impl<B: Buffer> BiasDropoutResidual<'_, B> {
    /// Checks the operands; returns `[t, h]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap),
    /// [`Error::Argument`](crate::Error::Argument).
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "bias_dropout_residual";
        let [t, h] = axes(OP, "x", "[t, h]", self.x)?;
        float(OP, "x", self.x)?;
        shape(OP, "bias", self.bias, &[h])?;
        shape(OP, "residual", self.residual, &[t, h])?;
        shape(OP, "y", self.y, &[t, h])?;
        for (name, view) in [("bias", self.bias), ("residual", self.residual), ("y", self.y)] {
            dtype(OP, name, view, self.x.dtype())?;
        }
        if let Some(mask) = &self.mask {
            mask.check(OP)?;
        }
        apart(OP, ("x", self.x), &[("bias", self.bias), ("residual", self.residual)], false)?;
        apart(OP, ("y", self.y), &[("x", self.x), ("bias", self.bias)], false)?;
        apart(OP, ("y", self.y), &[("residual", self.residual)], true)?;
        Ok([t, h])
    }
}
