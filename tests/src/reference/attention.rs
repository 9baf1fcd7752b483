//! Causal attention with dropout.

use backend::ops::AttentionDropout;

use super::dropout::kept;
use crate::{Real, U};

/// Extents and settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Sequences.
    pub b: usize,
    /// Tokens of a sequence.
    pub s: usize,
    /// Heads.
    pub a: usize,
    /// Head size.
    pub d: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// What is kept of the probabilities.
    pub dropout: Option<AttentionDropout>,
}

impl Attention {
    /// Index of component `i` of the query (0), key (1) or value (2) of a token and head in `qkv` `[b, s, a, 3, d]`.
    fn qkv(&self, [b, q, a]: [usize; 3], which: usize, i: usize) -> usize {
        (((b * self.s + q) * self.a + a) * 3 + which) * self.d + i
    }

    /// Index of component `i` of a token and head in `out` `[b, s, a, d]`.
    fn out(&self, [b, q, a]: [usize; 3], i: usize) -> usize {
        ((b * self.s + q) * self.a + a) * self.d + i
    }

    /// `scale Q[q] . K[k]` for each `k <= q`.
    fn scores<R: Real>(&self, qkv: &[R], [b, q, a]: [usize; 3]) -> Vec<R> {
        let score = |k: usize| {
            let term = |i: usize| qkv[self.qkv([b, q, a], 0, i)] * qkv[self.qkv([b, k, a], 1, i)];
            R::exact(self.scale).rounded(U) * R::sum((0..self.d).map(term))
        };
        (0..=q).map(score).collect()
    }

    /// 0 or `1 / (1 - p)`: what the dropout multiplies probability `[b, a, q, k]` by.
    fn factor<R: Real>(&self, [b, q, a]: [usize; 3], k: usize) -> R {
        let Some(dropout) = &self.dropout else { return R::exact(1.0) };
        let sample = dropout.first_sample + b as u64;
        let head = sample * dropout.heads as u64 + (dropout.first_head + a) as u64;
        let index = (head * self.s as u64 + q as u64) * self.s as u64 + k as u64;
        match kept(dropout.stream, dropout.p, index) {
            true => (R::exact(1.0) / R::exact(1.0 - f64::from(dropout.p))).rounded(2.0 * U),
            false => R::zero(),
        }
    }

    fn positions(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let (b, s, a) = (self.b, self.s, self.a);
        (0..b).flat_map(move |b| (0..s).flat_map(move |q| (0..a).map(move |a| [b, q, a])))
    }
}

/// `out` `[b, s, a, d]` and `lse` `[b, a, s]`.
pub fn forward<R: Real>(p: &Attention, qkv: &[R]) -> (Vec<R>, Vec<R>) {
    let mut out = vec![R::zero(); p.b * p.s * p.a * p.d];
    let mut lse = vec![R::zero(); p.b * p.a * p.s];
    for at @ [b, q, a] in p.positions() {
        let scores = p.scores(qkv, at);
        let max = scores.iter().copied().reduce(R::max).map_or(0.0, R::value);
        // A streaming softmax scales what it has by exp(old - new maximum) each time the maximum grows: at most once a key, far less on random rows.
        let rescaled = 2.0 * 4.0 * records(&scores) as f64 * U;
        // The maximum is a number like any other: it cancels, and its own error with it.
        let weight = |&score: &R| (score - R::exact(max)).exp().rounded(rescaled);
        let weights: Vec<R> = scores.iter().map(weight).collect();
        let total = R::sum(weights.iter().copied());
        let kept: Vec<R> = weights.iter().enumerate().map(|(k, &w)| w * p.factor(at, k)).collect();
        for i in 0..p.d {
            let term = |(k, &w): (usize, &R)| w * qkv[p.qkv([b, k, a], 2, i)];
            out[p.out(at, i)] = R::sum(kept.iter().enumerate().map(term)) / total;
        }
        lse[(b * p.a + a) * p.s + q] = R::exact(max) + total.ln();
    }
    (out, lse)
}

/// How often the running maximum grows, from either end.
pub(super) fn records<R: Real>(scores: &[R]) -> usize {
    fn count(values: impl Iterator<Item = f64>) -> usize {
        let mut max = f64::NEG_INFINITY;
        let grows = |&value: &f64| {
            let grows = value > max;
            max = max.max(value);
            grows
        };
        values.filter(grows).count()
    }
    count(scores.iter().map(|s| s.value())).max(count(scores.iter().rev().map(|s| s.value())))
}

/// `dqkv`, from what the forward saved.
pub fn backward<R: Real>(p: &Attention, qkv: &[R], out: &[R], lse: &[R], dout: &[R]) -> Vec<R> {
    let mut sums = vec![R::Sum::default(); qkv.len()];
    let scale = R::exact(p.scale).rounded(U);
    for at @ [b, q, a] in p.positions() {
        let delta = R::sum((0..p.d).map(|i| dout[p.out(at, i)] * out[p.out(at, i)]));
        let lse = lse[(b * p.a + a) * p.s + q];
        for (k, &score) in p.scores(qkv, at).iter().enumerate() {
            let probability = (score - lse).exp();
            let factor = p.factor(at, k);
            let value = |i: usize| qkv[p.qkv([b, k, a], 2, i)];
            let dp = factor * R::sum((0..p.d).map(|i| dout[p.out(at, i)] * value(i)));
            let ds = scale * probability * (dp - delta);
            for i in 0..p.d {
                let (query, key) = (p.qkv(at, 0, i), p.qkv([b, k, a], 1, i));
                R::add_to(&mut sums[query], ds * qkv[key]);
                R::add_to(&mut sums[key], ds * qkv[query]);
                R::add_to(&mut sums[p.qkv([b, k, a], 2, i)], probability * factor * dout[p.out(at, i)]);
            }
        }
    }
    sums.into_iter().map(R::total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};
    use backend::philox::Stream;

    #[test]
    fn against_differences() {
        let stream = Stream { seed: 8, stream: 9 };
        let dropout = AttentionDropout { p: 0.3, stream, first_sample: 5, first_head: 2, heads: 7 };
        for dropout in [None, Some(dropout)] {
            let p = Attention { b: 2, s: 5, a: 2, d: 3, scale: 0.7, dropout };
            let (qkv, dout) = (normal(1, 2 * 5 * 2 * 9), normal(2, 2 * 5 * 2 * 3));
            let (out, lse) = forward(&p, &qkv);
            let dqkv = backward(&p, &qkv, &out, &lse, &dout);
            check("dqkv", &qkv, &dqkv, |qkv| weigh(&dout, &forward(&p, qkv).0));
        }
    }

    /// The first token sees only itself; equal keys are weighed alike.
    #[test]
    fn known_values() {
        let p = Attention { b: 1, s: 2, a: 1, d: 1, scale: 1.0, dropout: None };
        let (out, lse) = forward(&p, &[2.0, 3.0, 10.0, 1.0, 3.0, 20.0]);
        assert_eq!(out, [10.0, 15.0]);
        assert!((lse[0] - 6.0).abs() < 1e-15 && (lse[1] - (3.0 + 2f64.ln())).abs() < 1e-15);
    }
}
