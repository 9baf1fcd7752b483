use super::{apart, dtype, shape, within};
use crate::{Buffer, DType, Result, View};

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), over any number of parameters that share their settings.
///
/// `g = grad_scale grad`, `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `param -= lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + weight_decay param)`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `param`, `m`, `v` | `[n]` | f32 | in place |
/// | `grad` | `[n]` | f32 | |
pub struct AdamW<'a, B> {
    /// Parameters.
    pub param: View<'a, B>,
    /// Their gradients.
    pub grad: View<'a, B>,
    /// First moments.
    pub m: View<'a, B>,
    /// Second moments.
    pub v: View<'a, B>,
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor of the gradient: the clip coefficient.
    pub grad_scale: f32,
    /// Number of this step, from 1.
    pub step: u32,
}

impl<B: Buffer> AdamW<'_, B> {
    /// Checks the operands; returns `n`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Overlap`](crate::Error::Overlap),
    /// [`Error::Argument`](crate::Error::Argument).
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "adamw";
        let views = [("param", self.param), ("grad", self.grad), ("m", self.m), ("v", self.v)];
        for (i, (name, view)) in views.iter().enumerate() {
            shape(OP, name, *view, &[self.param.len()])?;
            dtype(OP, name, *view, DType::F32)?;
            apart(OP, (name, *view), &views[..i], false)?;
        }
        within(OP, "step", self.step as f32, "at least 1", self.step > 0)?;
        Ok(self.param.len())
    }

    /// `1 - beta1^step` and `1 - beta2^step`, computed in f64.
    pub fn bias_corrections(&self) -> [f32; 2] {
        [self.beta1, self.beta2].map(|beta| (1.0 - f64::from(beta).powi(self.step as i32)) as f32)
    }
}
