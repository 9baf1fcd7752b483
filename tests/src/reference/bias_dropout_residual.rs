//! `residual + dropout(x + bias)`.

use backend::ops::DropoutMask;

use crate::Real;

/// The end of a residual branch of width `h`.
pub fn forward<R: Real>(h: usize, x: &[R], bias: &[R], residual: &[R], mask: Option<&DropoutMask>) -> Vec<R> {
    let branch = super::bias::forward(h, x, bias);
    let branch = match mask {
        Some(mask) => super::dropout::forward(&branch, mask),
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
        let dx = dropout::forward(&dy, &mask);
        let dbias = bias::backward(h, &dx, &[0.0; 4]);
        check("dx", &x, &dx, |x| weigh(&dy, &forward(h, x, &row, &residual, Some(&mask))));
        check("dbias", &row, &dbias, |row| weigh(&dy, &forward(h, &x, row, &residual, Some(&mask))));
        check("dresidual", &residual, &dy, |r| weigh(&dy, &forward(h, &x, &row, r, Some(&mask))));
        check("dx, no mask", &x, &dy, |x| weigh(&dy, &forward(h, x, &row, &residual, None)));
    }
}
