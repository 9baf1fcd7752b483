//! One step of AdamW.

use crate::{Real, U};

/// Its settings, as [`backend::ops::AdamW`] has them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the operation's own names")]
pub struct Settings {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    pub grad_scale: f32,
    pub step: u32,
}

/// Parameters and moments.
pub struct State<R> {
    /// The parameters.
    pub param: Vec<R>,
    /// First moments.
    pub m: Vec<R>,
    /// Second moments.
    pub v: Vec<R>,
}

/// The state after the step.
pub fn step<R: Real>(settings: &Settings, before: &State<R>, grad: &[R]) -> State<R> {
    let of = |x: f32| R::exact(f64::from(x));
    let one = R::exact(1.0);
    let Settings { lr, beta1, beta2, eps, weight_decay, grad_scale, step } = *settings;
    // Computed by the host in f64, and rounded.
    let correction = |beta: f32| R::exact(1.0 - f64::from(beta).powi(step as i32)).rounded(U);
    let (correction1, correction2) = (correction(beta1), correction(beta2));
    let mut after = State { param: Vec::new(), m: Vec::new(), v: Vec::new() };
    for (i, &g) in grad.iter().enumerate() {
        let g = of(grad_scale) * g;
        let m = of(beta1) * before.m[i] + (one - of(beta1)) * g;
        let v = of(beta2) * before.v[i] + (one - of(beta2)) * g * g;
        let update = m / correction1 / ((v / correction2).sqrt() + of(eps));
        let param = before.param[i];
        after.param.push(param - of(lr) * (update + of(weight_decay) * param));
        after.m.push(m);
        after.v.push(v);
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first step of Adam moves each parameter by lr against the sign of its gradient, whatever the gradient's size.
    #[test]
    fn first_step() {
        let settings = Settings {
            lr: 0.5,
            beta1: 0.75,
            beta2: 0.875,
            eps: 1e-30,
            weight_decay: 0.25,
            grad_scale: 2.0,
            step: 1,
        };
        let before = State { param: vec![8.0, 8.0, 8.0], m: vec![0.0; 3], v: vec![0.0; 3] };
        let after = step::<f64>(&settings, &before, &[3.0, -1e-3, 0.0]);
        for (param, expected) in after.param.iter().zip([8.0 - 0.5 - 1.0, 8.0 + 0.5 - 1.0, 8.0 - 1.0]) {
            assert!((param - expected).abs() < 1e-12, "{param} {expected}");
        }
        assert_eq!((after.m[0], after.v[0]), (0.25 * 6.0, 0.125 * 36.0));
    }
}
