use super::{apart, dtype, float, shape, within, workspace};
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
        const OP: &str = "sum";
        float(OP, "x", self.x)?;
        shape(OP, "out", self.out, &[1])?;
        dtype(OP, "out", self.out, DType::F32)?;
        apart(OP, ("out", self.out), &[("x", self.x)], false)?;
        workspace(OP, self.workspace, &[("x", self.x), ("out", self.out)])?;
        Ok(self.x.len())
    }
}

/// `out[i] = sum of x[j]^2 over block i`, the elements `i block .. (i + 1) block` (the last block may be shorter): the terms of the gradient norm.
///
/// A block's sum depends on the block's elements alone, neither on `x`'s length nor on where the block stands in it: the norm can be defined as a tree over
/// blocks, whoever holds them.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `x` | any, n elements | f32 |
/// | `out` | `[ceil(n / block)]` | f32 |
pub struct BlockSquares<'a, B> {
    /// What is squared.
    pub x: View<'a, B>,
    /// A sum a block.
    pub out: View<'a, B>,
    /// Elements a block, at least 1.
    pub block: usize,
}

impl<B: Buffer> BlockSquares<'_, B> {
    /// Checks the operands; returns the number of blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `block` is at least 1; as [`Sum::check`].
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "block_squares";
        within(OP, "block", self.block as f32, "at least 1", self.block > 0)?;
        let blocks = self.x.len().div_ceil(self.block);
        dtype(OP, "x", self.x, DType::F32)?;
        shape(OP, "out", self.out, &[blocks])?;
        dtype(OP, "out", self.out, DType::F32)?;
        apart(OP, ("out", self.out), &[("x", self.x)], false)?;
        Ok(blocks)
    }
}
