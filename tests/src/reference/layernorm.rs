//! Layer normalisation over the last axis.

use crate::Real;

/// What the forward returns.
pub struct Normalised<R> {
    /// `[t, h]`.
    pub y: Vec<R>,
    /// `[t]`.
    pub mean: Vec<R>,
    /// `[t]`.
    pub rstd: Vec<R>,
}

/// `y = (x - mean) rstd gamma + beta`, row by row.
pub fn forward<R: Real>(h: usize, x: &[R], gamma: &[R], beta: &[R], eps: f64) -> Normalised<R> {
    let n = R::exact(h as f64);
    let mut out = Normalised { y: Vec::with_capacity(x.len()), mean: Vec::new(), rstd: Vec::new() };
    for row in x.chunks_exact(h) {
        let mean = R::sum(row.iter().copied()) / n;
        let variance = R::sum(row.iter().map(|&x| (x - mean) * (x - mean))) / n;
        let rstd = R::exact(1.0) / (variance + R::exact(eps)).sqrt();
        out.y.extend(row.iter().enumerate().map(|(j, &x)| (x - mean) * rstd * gamma[j] + beta[j]));
        out.mean.push(mean);
        out.rstd.push(rstd);
    }
    out
}

/// What the backward accumulates into.
#[derive(Clone)]
pub struct Gradients<R> {
    /// `[t, h]`.
    pub dx: Vec<R>,
    /// `[h]`.
    pub dgamma: Vec<R>,
    /// `[h]`.
    pub dbeta: Vec<R>,
}

/// Adds the gradients to what is there; the statistics are the forward's.
pub fn backward<R: Real>(
    h: usize,
    x: &[R],
    gamma: &[R],
    [mean, rstd]: [&[R]; 2],
    dy: &[R],
    before: &Gradients<R>,
) -> Gradients<R> {
    let (t, n) = (x.len() / h, R::exact(h as f64));
    let normalised = |i: usize, j: usize| (x[i * h + j] - mean[i]) * rstd[i];
    let mut after = before.clone();
    for i in 0..t {
        let g = |j: usize| dy[i * h + j] * gamma[j];
        let mean_g = R::sum((0..h).map(g)) / n;
        let mean_gn = R::sum((0..h).map(|j| g(j) * normalised(i, j))) / n;
        for j in 0..h {
            let dx = rstd[i] * (g(j) - mean_g - normalised(i, j) * mean_gn);
            after.dx[i * h + j] = before.dx[i * h + j] + dx;
        }
    }
    for j in 0..h {
        after.dgamma[j] = before.dgamma[j] + R::sum((0..t).map(|i| dy[i * h + j] * normalised(i, j)));
        after.dbeta[j] = before.dbeta[j] + R::sum((0..t).map(|i| dy[i * h + j]));
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    #[test]
    fn against_differences() {
        let (t, h, eps) = (3, 5, 1e-2);
        let (x, gamma, beta, dy) = (normal(1, t * h), normal(2, h), normal(3, h), normal(4, t * h));
        let forward = |x: &[f64], gamma: &[f64], beta: &[f64]| forward(h, x, gamma, beta, eps);
        let Normalised { mean, rstd, .. } = forward(&x, &gamma, &beta);
        let zero = Gradients { dx: vec![0.0; t * h], dgamma: vec![0.0; h], dbeta: vec![0.0; h] };
        let gradients = backward(h, &x, &gamma, [&mean, &rstd], &dy, &zero);
        check("dx", &x, &gradients.dx, |x| weigh(&dy, &forward(x, &gamma, &beta).y));
        check("dgamma", &gamma, &gradients.dgamma, |gamma| weigh(&dy, &forward(&x, gamma, &beta).y));
        check("dbeta", &beta, &gradients.dbeta, |beta| weigh(&dy, &forward(&x, &gamma, beta).y));
    }

    #[test]
    fn rows_are_normal() {
        let out = forward(64, &normal(5, 128), &[1.0; 64], &[0.0; 64], 1e-12);
        for row in out.y.chunks(64) {
            let (sum, squares) = row.iter().fold((0.0, 0.0), |(s, q), y| (s + y, q + y * y));
            assert!(sum.abs() < 1e-12 && (squares / 64.0 - 1.0).abs() < 1e-10);
        }
    }
}
