use super::{apart, axes, dtype, float, shape, within, workspace};
use crate::{Buffer, DType, Error, Result, View};

/// Layer normalisation over the last axis (Ba, Kiros & Hinton 2016, eq. 4).
///
/// `y[t, :] = (x[t, :] - mean[t]) * rstd[t] * gamma + beta`, with `rstd = 1 / sqrt(var + eps)` and the biased variance.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x`, `y` | `[t, h]` | float, alike | may be the same view |
/// | `gamma`, `beta` | `[h]` | as `x` | replicated across tensor ranks |
/// | `mean`, `rstd` | `[t]` | f32 | saved for the backward |
///
/// Statistics are fp32 and two-pass (mean first, then the centred squares): a row of large equal values keeps its variance of 0.
pub struct LayerNorm<'a, B> {
    /// Input.
    pub x: View<'a, B>,
    /// Gain.
    pub gamma: View<'a, B>,
    /// Offset.
    pub beta: View<'a, B>,
    /// Added to the variance.
    pub eps: f32,
    /// Output.
    pub y: View<'a, B>,
    /// Mean of each row.
    pub mean: View<'a, B>,
    /// Reciprocal standard deviation of each row.
    pub rstd: View<'a, B>,
}

impl<B: Buffer> LayerNorm<'_, B> {
    /// Checks the operands; returns `[t, h]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes disagree or `h` is 0; [`Error::DType`], [`Error::Overlap`], [`Error::Argument`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "layernorm";
        let [t, h] = rows(OP, self.x)?;
        shape(OP, "y", self.y, &[t, h])?;
        shape(OP, "gamma", self.gamma, &[h])?;
        shape(OP, "beta", self.beta, &[h])?;
        for (name, view) in [("y", self.y), ("gamma", self.gamma), ("beta", self.beta)] {
            dtype(OP, name, view, self.x.dtype())?;
        }
        statistics(OP, t, self.mean, self.rstd)?;
        within(OP, "eps", self.eps, "positive", self.eps > 0.0)?;
        let inputs = [("gamma", self.gamma), ("beta", self.beta)];
        apart(OP, ("y", self.y), &inputs, false)?;
        apart(OP, ("y", self.y), &[("x", self.x)], true)?;
        for output in [("mean", self.mean), ("rstd", self.rstd)] {
            apart(OP, output, &[inputs[0], inputs[1], ("x", self.x), ("y", self.y)], false)?;
        }
        apart(OP, ("mean", self.mean), &[("rstd", self.rstd)], false)?;
        Ok([t, h])
    }
}

/// Gradients of [`LayerNorm`]. With `n = (x - mean) rstd` and `g = dy gamma`:
///
/// `dx = rstd (g - mean_h(g) - n mean_h(g n))`, added to `dx` where `accumulate`; `dgamma += sum_t dy n`; `dbeta += sum_t dy`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x`, `dy`, `dx` | `[t, h]` | float, alike | `dx` may be `dy` unless `accumulate` |
/// | `gamma` | `[h]` | as `x` | |
/// | `mean`, `rstd` | `[t]` | f32 | the forward's |
/// | `dgamma`, `dbeta` | `[h]` | f32 | accumulated |
pub struct LayerNormBackward<'a, B> {
    /// The forward's input.
    pub x: View<'a, B>,
    /// Gain.
    pub gamma: View<'a, B>,
    /// The forward's mean.
    pub mean: View<'a, B>,
    /// The forward's reciprocal standard deviation.
    pub rstd: View<'a, B>,
    /// Upstream gradient.
    pub dy: View<'a, B>,
    /// Gradient of the input.
    pub dx: View<'a, B>,
    /// Whether `dx` already holds a gradient to add to: that of the residual.
    pub accumulate: bool,
    /// Gradient of the gain.
    pub dgamma: View<'a, B>,
    /// Gradient of the offset.
    pub dbeta: View<'a, B>,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> LayerNormBackward<'_, B> {
    /// Checks the operands; returns `[t, h]`.
    ///
    /// # Errors
    /// As [`LayerNorm::check`].
    pub fn check(&self) -> Result<[usize; 2]> {
        const OP: &str = "layernorm_backward";
        let [t, h] = rows(OP, self.x)?;
        for (name, view) in [("dy", self.dy), ("dx", self.dx)] {
            shape(OP, name, view, &[t, h])?;
            dtype(OP, name, view, self.x.dtype())?;
        }
        shape(OP, "gamma", self.gamma, &[h])?;
        dtype(OP, "gamma", self.gamma, self.x.dtype())?;
        statistics(OP, t, self.mean, self.rstd)?;
        for (name, view) in [("dgamma", self.dgamma), ("dbeta", self.dbeta)] {
            shape(OP, name, view, &[h])?;
            dtype(OP, name, view, DType::F32)?;
        }
        let inputs = [("x", self.x), ("gamma", self.gamma), ("mean", self.mean), ("rstd", self.rstd)];
        for output in [("dx", self.dx), ("dgamma", self.dgamma), ("dbeta", self.dbeta)] {
            apart(OP, output, &inputs, false)?;
        }
        apart(OP, ("dx", self.dx), &[("dy", self.dy)], !self.accumulate)?;
        for output in [("dgamma", self.dgamma), ("dbeta", self.dbeta)] {
            apart(OP, output, &[("dy", self.dy), ("dx", self.dx)], false)?;
        }
        apart(OP, ("dgamma", self.dgamma), &[("dbeta", self.dbeta)], false)?;
        let operands = [("dy", self.dy), ("dx", self.dx), ("dgamma", self.dgamma), ("dbeta", self.dbeta)];
        workspace(OP, self.workspace, &inputs)?;
        workspace(OP, self.workspace, &operands)?;
        Ok([t, h])
    }
}

/// `[t, h]` of floats with `h` at least 1.
fn rows<B: Buffer>(op: &'static str, x: View<'_, B>) -> Result<[usize; 2]> {
    let [t, h] = axes(op, "x", "[t, h]", x)?;
    float(op, "x", x)?;
    match h {
        0 => Err(Error::Shape {
            op,
            tensor: "x",
            expected: "[t, h] with h at least 1".to_owned(),
            got: x.shape(),
        }),
        _ => Ok([t, h]),
    }
}

fn statistics<B: Buffer>(op: &'static str, t: usize, mean: View<'_, B>, rstd: View<'_, B>) -> Result<()> {
    for (name, view) in [("mean", mean), ("rstd", rstd)] {
        shape(op, name, view, &[t])?;
        dtype(op, name, view, DType::F32)?;
    }
    Ok(())
}
