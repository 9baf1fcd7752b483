//! `c = alpha op(a) op(b) + beta c`.

use crate::Real;

/// Extents and settings of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Matrices in the batch.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of each dot product.
    pub k: usize,
    /// Whether `a` is stored `[k, m]`.
    pub trans_a: bool,
    /// Whether `b` is stored `[n, k]`.
    pub trans_b: bool,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what `c` held; with 0, `c` is not looked at.
    pub beta: f64,
}

/// The result, `[batch, m, n]`.
pub fn forward<R: Real>(p: &Product, a: &[R], b: &[R], c: &[R]) -> Vec<R> {
    let Product { batch, m, n, k, trans_a, trans_b, .. } = *p;
    let mut out = Vec::with_capacity(batch * m * n);
    for matrix in 0..batch {
        let (a, b) = (&a[matrix * m * k..], &b[matrix * k * n..]);
        for i in 0..m {
            for j in 0..n {
                let dot = R::sum((0..k).map(|l| {
                    let left = if trans_a { a[l * m + i] } else { a[i * k + l] };
                    let right = if trans_b { b[j * k + l] } else { b[l * n + j] };
                    left * right
                }));
                let mut value = R::exact(p.alpha) * dot;
                if p.beta != 0.0 {
                    value = value + R::exact(p.beta) * c[(matrix * m + i) * n + j];
                }
                out.push(value);
            }
        }
    }
    out
}

/// A linear layer, `y = x w^T + bias`: `x` `[t, k]`, `w` `[n, k]`.
pub fn linear<R: Real>([t, n, k]: [usize; 3], x: &[R], w: &[R], bias: &[R]) -> Vec<R> {
    let p = Product { batch: 1, m: t, n, k, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 };
    super::bias::forward(n, &forward(&p, x, w, &[]), bias)
}

/// Gradients of [`linear`]'s `x` and `w`: the two products that a backward makes.
pub fn linear_backward<R: Real>([t, n, k]: [usize; 3], x: &[R], w: &[R], dy: &[R]) -> (Vec<R>, Vec<R>) {
    let p = Product { batch: 1, m: t, n: k, k: n, trans_a: false, trans_b: false, alpha: 1.0, beta: 0.0 };
    let dx = forward(&p, dy, w, &[]);
    let p = Product { m: n, n: k, k: t, trans_a: true, ..p };
    (dx, forward(&p, dy, x, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    #[test]
    fn known_product() {
        let p = Product { batch: 1, m: 2, n: 2, k: 2, trans_a: false, trans_b: false, alpha: 2.0, beta: 1.0 };
        let (a, b, c) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [1.0; 4]);
        assert_eq!(forward(&p, &a, &b, &c), [39.0, 45.0, 87.0, 101.0]);
        // (a b)^T = b^T a^T
        let p = Product { trans_a: true, trans_b: true, beta: 0.0, ..p };
        assert_eq!(forward(&p, &b, &a, &[]), [38.0, 86.0, 44.0, 100.0]);
    }

    #[test]
    fn linear_against_differences() {
        let dims = [3, 4, 5];
        let (x, w, bias, dy) = (normal(1, 15), normal(2, 20), normal(3, 4), normal(4, 12));
        let (dx, dw) = linear_backward(dims, &x, &w, &dy);
        check("dx", &x, &dx, |x| weigh(&dy, &linear(dims, x, &w, &bias)));
        check("dw", &w, &dw, |w| weigh(&dy, &linear(dims, &x, w, &bias)));
        let dbias = crate::reference::bias::backward(4, &dy, &[0.0; 4]);
        check("dbias", &bias, &dbias, |bias| weigh(&dy, &linear(dims, &x, &w, bias)));
    }
}
