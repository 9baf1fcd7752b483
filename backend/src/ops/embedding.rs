use super::{apart, axes, dtype, float, shape, workspace};
use crate::{Buffer, DType, Result, View};

/// Vocabulary-parallel embedding, this rank's part: `y[t, :] = table[tokens[t] - first_row, :]`, or 0 where another rank holds the row. The sum over
/// the tensor group is the embedding.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `tokens` | `[t]` | u32 | |
/// | `table` | `[v, h]` | float | rows `first_row .. first_row + v` of the vocabulary |
/// | `y` | `[t, h]` | as `table` | |
pub struct Embedding<'a, B> {
    /// Token indices.
    pub tokens: View<'a, B>,
    /// This rank's rows.
    pub table: View<'a, B>,
    /// The first of them.
    pub first_row: usize,
    /// Output.
    pub y: View<'a, B>,
}

impl<B: Buffer> Embedding<'_, B> {
    /// Checks the operands; returns `[t, v, h]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap).
    pub fn check(&self) -> Result<[usize; 3]> {
        const OP: &str = "embedding";
        let [v, h] = axes(OP, "table", "[v, h]", self.table)?;
        let [t] = axes(OP, "tokens", "[t]", self.tokens)?;
        shape(OP, "y", self.y, &[t, h])?;
        dtype(OP, "tokens", self.tokens, DType::U32)?;
        float(OP, "table", self.table)?;
        dtype(OP, "y", self.y, self.table.dtype())?;
        apart(OP, ("y", self.y), &[("table", self.table), ("tokens", self.tokens)], false)?;
        Ok([t, v, h])
    }
}

/// Gradient of [`Embedding`]: `dtable[tokens[t] - first_row, :] += dy[t, :]`, for each row in the order of t.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `tokens` | `[t]` | u32 | |
/// | `dy` | `[t, h]` | float | |
/// | `dtable` | `[v, h]` | f32 | accumulated |
pub struct EmbeddingBackward<'a, B> {
    /// Token indices.
    pub tokens: View<'a, B>,
    /// Upstream gradient.
    pub dy: View<'a, B>,
    /// The first of this rank's rows.
    pub first_row: usize,
    /// Gradient of this rank's rows.
    pub dtable: View<'a, B>,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> EmbeddingBackward<'_, B> {
    /// Checks the operands; returns `[t, v, h]`.
    ///
    /// # Errors
    /// As [`Embedding::check`].
    pub fn check(&self) -> Result<[usize; 3]> {
        const OP: &str = "embedding_backward";
        let [v, h] = axes(OP, "dtable", "[v, h]", self.dtable)?;
        let [t] = axes(OP, "tokens", "[t]", self.tokens)?;
        shape(OP, "dy", self.dy, &[t, h])?;
        dtype(OP, "tokens", self.tokens, DType::U32)?;
        float(OP, "dy", self.dy)?;
        dtype(OP, "dtable", self.dtable, DType::F32)?;
        let operands = [("tokens", self.tokens), ("dy", self.dy)];
        apart(OP, ("dtable", self.dtable), &operands, false)?;
        workspace(OP, self.workspace, &[operands[0], operands[1], ("dtable", self.dtable)])?;
        Ok([t, v, h])
    }
}
