//! Sums of everything.

use crate::Real;

/// `alpha sum(x) + beta out`; with `beta` 0, `out` is not looked at.
pub fn sum<R: Real>(x: &[R], out: R, alpha: f64, beta: f64) -> R {
    let sum = R::exact(alpha) * R::sum(x.iter().copied());
    if beta == 0.0 { sum } else { sum + R::exact(beta) * out }
}

/// `sum(x^2) + beta out`; with `beta` 0, `out` is not looked at.
pub fn sum_squares<R: Real>(x: &[R], out: R, beta: f64) -> R {
    let sum = R::sum(x.iter().map(|&x| x * x));
    if beta == 0.0 { sum } else { sum + R::exact(beta) * out }
}
