//! `residual + dropout(x + bias)`.

use backend::ops::DropoutMask;

use crate::Real;

/// The end of a residual branch of width `h`; `step` is what happens to the branch between two of the operations it is composed of.
pub fn forward<R: Real>(
    h: usize,
    x: &[R],
    bias: &[R],
    residual: &[R],
    mask: Option<&DropoutMask>,
    step: impl Fn(&[R]) -> Vec<R>,
) -> Vec<R> {
    let branch = step(&super::bias::forward(h, x, bias));
    let branch = match mask {
        Some(mask) => step(&super::dropout::forward(&branch, mask)),
        None => branch,
    };
    branch.iter().zip(residual).map(|(&x, &residual)| residual + x).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};
    use crate::reference::{bias, dropout};
    use backend::philox::Stream;

    /// The backward as the contract states it: dropout of the upstream gradient, then the bias's; the residual's is the upstream one.
    #[test]
    fn against_differences() {
        let (t, h) = (5, 4);
        let mask = DropoutMask { p: 0.4, stream: Stream { seed: 3, stream: 4 }, first: 7 };
        let (x, row, residual, dy) = (normal(1, t * h), normal(2, h), normal(3, t * h), normal(4, t * h));
        let forward = |x: &[f64], row: &[f64], residual: &[f64], mask: Option<&DropoutMask>| {
            forward(h, x, row, residual, mask, <[f64]>::to_vec)
        };
        let dx = dropout::forward(&dy, &mask);
        let dbias = bias::backward(h, &dx, &[0.0; 4]);
        check("dx", &x, &dx, |x| weigh(&dy, &forward(x, &row, &residual, Some(&mask))));
        check("dbias", &row, &dbias, |row| weigh(&dy, &forward(&x, row, &residual, Some(&mask))));
        check("dresidual", &residual, &dy, |r| weigh(&dy, &forward(&x, &row, r, Some(&mask))));
        check("dx, no mask", &x, &dy, |x| weigh(&dy, &forward(x, &row, &residual, None)));
    }
}
