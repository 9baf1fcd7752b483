//! Vocabulary-parallel cross-entropy in its local pieces.

use crate::Real;

/// The column of `logits` for a target, where this rank holds it.
fn column(target: u32, first_column: usize, v: usize) -> Option<usize> {
    (target as usize).checked_sub(first_column).filter(|&column| column < v)
}

/// The largest of each row; NaN if one of them is NaN. It is one of the logits: no rounding.
pub fn max(v: usize, logits: &[f32]) -> Vec<f32> {
    let larger = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
    logits.chunks_exact(v).map(|row| row.iter().copied().fold(f32::NEG_INFINITY, larger)).collect()
}

/// `sum_exp` and `target`.
pub fn sums<R: Real>(
    v: usize,
    logits: &[R],
    targets: &[u32],
    first_column: usize,
    max: &[R],
) -> (Vec<R>, Vec<R>) {
    let rows = || logits.chunks_exact(v).zip(max);
    let sum_exp = rows().map(|(row, &max)| R::sum(row.iter().map(|&x| (x - max).exp()))).collect();
    let target = rows().zip(targets).map(|((row, &max), &target)| match column(target, first_column, v) {
        Some(column) => row[column] - max,
        None => R::zero(),
    });
    (sum_exp, target.collect())
}

/// `ln(sum_exp) - target`.
pub fn loss<R: Real>(sum_exp: &[R], target: &[R]) -> Vec<R> {
    sum_exp.iter().zip(target).map(|(&sum, &target)| sum.ln() - target).collect()
}

/// `scale (exp(logits - max) / sum_exp - [target])`.
pub fn backward<R: Real>(
    v: usize,
    logits: &[R],
    targets: &[u32],
    first_column: usize,
    [max, sum_exp]: [&[R]; 2],
    scale: f64,
) -> Vec<R> {
    let gradient = |(i, &x): (usize, &R)| {
        let (t, j) = (i / v, i % v);
        let probability = (x - max[t]).exp() / sum_exp[t];
        let hit = column(targets[t], first_column, v) == Some(j);
        R::exact(scale) * (if hit { probability - R::exact(1.0) } else { probability })
    };
    logits.iter().enumerate().map(gradient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    /// The pieces of two ranks, put together as the model does, against the differences of their loss.
    #[test]
    fn two_ranks_against_differences() {
        let (t, v) = (4, 5);
        let targets = [0, 7, 4, 9];
        let halves = [normal(1, t * v), normal(2, t * v)];
        let weights = normal(3, t);
        let max: Vec<f64> = (0..t)
            .map(|i| {
                halves.iter().flat_map(|half| &half[i * v..(i + 1) * v]).fold(f64::MIN, |m, &x| m.max(x))
            })
            .collect();
        let group = |halves: [&[f64]; 2]| {
            let [(s0, t0), (s1, t1)] = [0, 1].map(|rank| sums(v, halves[rank], &targets, rank * v, &max));
            let add =
                |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> { a.iter().zip(&b).map(|(a, b)| a + b).collect() };
            (add(s0, s1), add(t0, t1))
        };
        let objective = |halves: [&[f64]; 2]| {
            let (sum_exp, target) = group(halves);
            weigh(&weights, &loss(&sum_exp, &target))
        };
        let (sum_exp, _) = group([&halves[0], &halves[1]]);
        for rank in 0..2 {
            let mut dlogits = backward(v, &halves[rank], &targets, rank * v, [&max, &sum_exp], 1.0);
            dlogits.iter_mut().enumerate().for_each(|(i, d)| *d *= weights[i / v]);
            check("dlogits", &halves[rank], &dlogits, |half| match rank {
                0 => objective([half, &halves[1]]),
                _ => objective([&halves[0], half]),
            });
        }
    }

    #[test]
    fn uniform_logits() {
        let (sum_exp, target) = sums(8, &[3.0; 8], &[5], 0, &[3.0]);
        assert!((loss(&sum_exp, &target)[0] - 8f64.ln()).abs() < 1e-15);
    }
}
