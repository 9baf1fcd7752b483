use super::{apart, axes, dtype, float, shape};
use crate::{Buffer, DType, Result, View};

// Vocabulary-parallel cross-entropy (Shoeybi et al. 2019, section 3) in its local pieces. The caller reduces between them over the tensor group:
//   max = all_reduce MAX (CrossEntropyMax);  sum_exp, target = all_reduce SUM (CrossEntropySums);  loss = CrossEntropyLoss.

/// First piece: `max[t] = max over this rank's logits[t, :]`, NaN if one of them is NaN.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `logits` | `[t, v]` | float |
/// | `max` | `[t]` | f32 |
pub struct CrossEntropyMax<'a, B> {
    /// This rank's logits.
    pub logits: View<'a, B>,
    /// The largest of each row.
    pub max: View<'a, B>,
}

impl<B: Buffer> CrossEntropyMax<'_, B> {
    /// Checks the operands; returns `[t, v]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap).
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "cross_entropy_max";
        let [t, v] = logits(OP, self.logits)?;
        per_token(OP, t, &[("max", self.max)])?;
        apart(OP, ("max", self.max), &[("logits", self.logits)], false)?;
        Ok([t, v])
    }
}

/// Second piece: `sum_exp[t] = sum over this rank's columns of exp(logits[t, :] - max[t])`, and `target[t] = logits[t, targets[t] - first_column] -
/// max[t]`, 0 where another rank holds that column.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `logits` | `[t, v]` | float |
/// | `targets` | `[t]` | u32 |
/// | `max`, `sum_exp`, `target` | `[t]` | f32 |
pub struct CrossEntropySums<'a, B> {
    /// This rank's logits.
    pub logits: View<'a, B>,
    /// The next tokens.
    pub targets: View<'a, B>,
    /// The first of this rank's columns in the vocabulary.
    pub first_column: usize,
    /// The group's maximum.
    pub max: View<'a, B>,
    /// Sums of exponentials.
    pub sum_exp: View<'a, B>,
    /// Target logits.
    pub target: View<'a, B>,
}

impl<B: Buffer> CrossEntropySums<'_, B> {
    /// Checks the operands; returns `[t, v]`.
    ///
    /// # Errors
    /// As [`CrossEntropyMax::check`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "cross_entropy_sums";
        let [t, v] = logits(OP, self.logits)?;
        shape(OP, "targets", self.targets, &[t])?;
        dtype(OP, "targets", self.targets, DType::U32)?;
        per_token(OP, t, &[("max", self.max), ("sum_exp", self.sum_exp), ("target", self.target)])?;
        let inputs = [("logits", self.logits), ("targets", self.targets), ("max", self.max)];
        apart(OP, ("sum_exp", self.sum_exp), &inputs, false)?;
        apart(OP, ("target", self.target), &inputs, false)?;
        apart(OP, ("target", self.target), &[("sum_exp", self.sum_exp)], false)?;
        Ok([t, v])
    }
}

/// Third piece: `loss[t] = ln(sum_exp[t]) - target[t]`, from the group's sums.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `sum_exp`, `target`, `loss` | `[t]` | f32 |
pub struct CrossEntropyLoss<'a, B> {
    /// The group's sums of exponentials.
    pub sum_exp: View<'a, B>,
    /// The group's target logits.
    pub target: View<'a, B>,
    /// Loss of each token, in nats.
    pub loss: View<'a, B>,
}

impl<B: Buffer> CrossEntropyLoss<'_, B> {
    /// Checks the operands; returns `t`.
    ///
    /// # Errors
    /// As [`CrossEntropyMax::check`].
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "cross_entropy_loss";
        let [t] = axes(OP, "loss", "[t]", self.loss)?;
        per_token(OP, t, &[("sum_exp", self.sum_exp), ("target", self.target), ("loss", self.loss)])?;
        apart(OP, ("loss", self.loss), &[("sum_exp", self.sum_exp), ("target", self.target)], false)?;
        Ok(t)
    }
}

/// Gradient: `dlogits[t, j] = scale (exp(logits[t, j] - max[t]) / sum_exp[t] - [targets[t] = first_column + j])`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `logits`, `dlogits` | `[t, v]` | float | may be the same view |
/// | `targets` | `[t]` | u32 | |
/// | `max`, `sum_exp` | `[t]` | f32 | the group's |
pub struct CrossEntropyBackward<'a, B> {
    /// This rank's logits.
    pub logits: View<'a, B>,
    /// The next tokens.
    pub targets: View<'a, B>,
    /// The first of this rank's columns in the vocabulary.
    pub first_column: usize,
    /// The group's maximum.
    pub max: View<'a, B>,
    /// The group's sums of exponentials.
    pub sum_exp: View<'a, B>,
    /// Gradient of the whole objective with respect to one token's loss.
    pub scale: f32,
    /// Gradient of the logits.
    pub dlogits: View<'a, B>,
}

impl<B: Buffer> CrossEntropyBackward<'_, B> {
    /// Checks the operands; returns `[t, v]`.
    ///
    /// # Errors
    /// As [`CrossEntropyMax::check`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "cross_entropy_backward";
        let [t, v] = logits(OP, self.logits)?;
        shape(OP, "targets", self.targets, &[t])?;
        dtype(OP, "targets", self.targets, DType::U32)?;
        per_token(OP, t, &[("max", self.max), ("sum_exp", self.sum_exp)])?;
        shape(OP, "dlogits", self.dlogits, &[t, v])?;
        float(OP, "dlogits", self.dlogits)?;
        let inputs = [("targets", self.targets), ("max", self.max), ("sum_exp", self.sum_exp)];
        apart(OP, ("dlogits", self.dlogits), &inputs, false)?;
        apart(OP, ("dlogits", self.dlogits), &[("logits", self.logits)], true)?;
        Ok([t, v])
    }
}

fn logits<B: Buffer>(op: &'static str, view: View<'_, B>) -> Result<[usize; 2]> {
    float(op, "logits", view)?;
    axes(op, "logits", "[t, v]", view)
}

fn per_token<B: Buffer>(op: &'static str, t: usize, views: &[(&'static str, View<'_, B>)]) -> Result<()> {
    for (name, view) in views {
        shape(op, name, *view, &[t])?;
        dtype(op, name, *view, DType::F32)?;
    }
    Ok(())
}
