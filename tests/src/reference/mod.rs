//! Every operation of the contract in plain loops over [`Real`](crate::Real): the maths of its documentation and nothing else.
//!
//! Backwards are written out as the contract states them, and checked here by central differences of the forwards in f64.

pub mod adamw;
pub mod attention;
pub mod attention_cached;
pub mod bias;
pub mod bias_dropout_residual;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gelu;
pub mod layernorm;
pub mod matmul;
pub mod reduce;

#[cfg(test)]
pub(crate) mod differences {
    /// Numbers for a gradient check.
    pub fn normal(seed: u64, n: usize) -> Vec<f64> {
        let stream = backend::philox::Stream { seed, stream: 0 };
        (0..n as u64).map(|i| stream.normal(i)).collect()
    }

    /// `sum(weights * y)`: an objective whose gradient with respect to `y` is `weights`.
    pub fn weigh(weights: &[f64], y: &[f64]) -> f64 {
        weights.iter().zip(y).map(|(w, y)| w * y).sum()
    }

    /// `gradient` is that of `objective` at `x`, by central differences.
    ///
    /// With step 1e-5 the truncation is about 1e-10 of the third derivative and the rounding 1e-11 of the objective; 1e-8 covers both and no mistake.
    pub fn check(name: &str, x: &[f64], gradient: &[f64], objective: impl Fn(&[f64]) -> f64) {
        assert_eq!(x.len(), gradient.len(), "{name}");
        let step = 1e-5;
        let largest = gradient.iter().fold(1.0_f64, |m, g| m.max(g.abs()));
        let mut x = x.to_vec();
        for (i, gradient) in gradient.iter().enumerate() {
            let center = x[i];
            x[i] = center + step;
            let above = objective(&x);
            x[i] = center - step;
            let below = objective(&x);
            x[i] = center;
            let difference = (above - below) / (2.0 * step);
            assert!(
                (difference - gradient).abs() <= 1e-8 * largest,
                "{name}[{i}]: {gradient} is not the difference quotient {difference}"
            );
        }
    }
}
