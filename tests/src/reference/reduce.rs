//! Sums of everything.

use crate::Real;

/// `alpha sum(x) + beta out`; with `beta` 0, `out` is not looked at.
pub fn sum<R: Real>(x: &[R], out: R, alpha: f64, beta: f64) -> R {
    let sum = R::exact(alpha) * R::sum(x.iter().copied());
    if beta == 0.0 { sum } else { sum + R::exact(beta) * out }
}

/// The sum of the squares of each block of so many elements; the last one may be shorter.
pub fn block_squares<R: Real>(block: usize, x: &[R]) -> Vec<R> {
    x.chunks(block).map(|block| R::sum(block.iter().map(|&x| x * x))).collect()
}
