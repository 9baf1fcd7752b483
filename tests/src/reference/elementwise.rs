//! `y += alpha x`, `x *= alpha`, and the arithmetic of the collectives.

use backend::ReduceOp;

use crate::Real;

/// `y + alpha x`.
pub fn add<R: Real>(x: &[R], y: &[R], alpha: f64) -> Vec<R> {
    x.iter().zip(y).map(|(&x, &y)| y + R::exact(alpha) * x).collect()
}

/// `alpha x`.
pub fn scale<R: Real>(x: &[R], alpha: f64) -> Vec<R> {
    x.iter().map(|&x| R::exact(alpha) * x).collect()
}

/// The inputs combined element by element, in their order, each step rounded to f32: the bits are part of the contract.
pub fn reduce(op: ReduceOp, inputs: &[&[f32]]) -> Vec<f32> {
    let combine = |a: f32, b: f32| match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Max if a.is_nan() || b.is_nan() => f32::NAN,
        ReduceOp::Max => a.max(b),
    };
    (0..inputs[0].len())
        .map(|i| inputs[1..].iter().fold(inputs[0][i], |sum, input| combine(sum, input[i])))
        .collect()
}
