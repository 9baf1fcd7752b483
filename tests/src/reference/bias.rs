//! `x[t, :] += bias`.

use crate::Real;

/// `x` `[t, n]` with the row added to each of its rows.
pub fn forward<R: Real>(n: usize, x: &[R], bias: &[R]) -> Vec<R> {
    x.iter().enumerate().map(|(i, &x)| x + bias[i % n]).collect()
}

/// `dbias + sum over t of dy[t, :]`.
pub fn backward<R: Real>(n: usize, dy: &[R], dbias: &[R]) -> Vec<R> {
    let t = dy.len() / n;
    (0..n).map(|j| dbias[j] + R::sum((0..t).map(|i| dy[i * n + j]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    #[test]
    fn against_differences() {
        let (x, bias, dy) = (normal(1, 12), normal(2, 4), normal(3, 12));
        check("dbias", &bias, &backward(4, &dy, &[0.0; 4]), |bias| weigh(&dy, &forward(4, &x, bias)));
    }
}
