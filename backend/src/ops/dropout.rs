use super::{apart, dtype, float, shape, within};
use crate::philox::Stream;
use crate::{Buffer, Result, View};

/// Which elements a dropout keeps: element i of the view is element `first + i` of the global tensor, kept where word `first + i` of the stream is at
/// least `p 2^32`, and scaled by `1 / (1 - p)`. The backward applies the same mask to the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutMask {
    /// Probability of being dropped, in `[0, 1)`.
    pub p: f32,
    /// Seed and stream: one stream for each place in the model where there is a dropout.
    pub stream: Stream,
    /// Global index of the view's first element.
    pub first: u64,
}

impl DropoutMask {
    /// Factor of the elements that are kept.
    pub fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        within(op, "p", self.p, "at least 0 and below 1", (0.0..1.0).contains(&self.p))
    }
}

/// Dropout (Srivastava et al. 2014), forward or backward: `y = mask x / (1 - p)`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x`, `y` | any, alike | float, alike | may be the same view |
pub struct Dropout<'a, B> {
    /// Input, or upstream gradient.
    pub x: View<'a, B>,
    /// Output, or the input's gradient.
    pub y: View<'a, B>,
    /// What is kept.
    pub mask: DropoutMask,
}

impl<B: Buffer> Dropout<'_, B> {
    /// Checks the operands; returns the number of elements.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap),
    /// [`Error::Argument`](crate::Error::Argument).
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "dropout";
        self.mask.check(OP)?;
        float(OP, "x", self.x)?;
        shape(OP, "y", self.y, self.x.extents())?;
        dtype(OP, "y", self.y, self.x.dtype())?;
        apart(OP, ("y", self.y), &[("x", self.x)], true)?;
        Ok(self.x.len())
    }
}
