//! `y += alpha x`, `x *= alpha`, and the arithmetic of the collectives.

use backend::ReduceOp;

use crate::Real;

/// `y + alpha x`.
pub fn add<R: Real>(x: &[R], y: &[R], alpha: f64) -> Vec<R> {
    x.iter().zip(y).map(|(&x, &y)| y + R::exact(alpha) * x).collect()
}

/// `alpha x`.
pub fn scale<R: Real>(x: &[R], alpha: f64) -> Vec<R> {
    x.iter().map(|&x| R::exact(alpha) * x).collect()
}

/// The inputs combined element by element in a balanced binary tree, neighbours first, an odd last one going up as it is, and each step rounded to f32:
/// the bits are part of the contract.
pub fn reduce(op: ReduceOp, inputs: &[&[f32]]) -> Vec<f32> {
    let combine = |a: f32, b: f32| match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Max if a.is_nan() || b.is_nan() => f32::NAN,
        ReduceOp::Max => a.max(b),
    };
    let tree = |i: usize| {
        let mut level: Vec<f32> = inputs.iter().map(|input| input[i]).collect();
        while level.len() > 1 {
            let pair = |pair: &[f32]| if let [a, b] = *pair { combine(a, b) } else { pair[0] };
            level = level.chunks(2).map(pair).collect();
        }
        level[0]
    };
    (0..inputs[0].len()).map(tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2^24 and a half: what is added to the large number alone is lost, what is added to its like first is not.
    #[test]
    fn the_sum_is_a_tree() {
        let large = 16_777_216.0;
        let sum = |inputs: &[f32]| {
            reduce(ReduceOp::Sum, &inputs.iter().map(std::slice::from_ref).collect::<Vec<_>>())[0]
        };
        assert_eq!(sum(&[large, 1.0, 1.0]), large);
        assert_eq!(sum(&[large, 0.0, 1.0, 1.0]), large + 2.0);
        assert_eq!(sum(&[large, 1.0, 1.0, 1.0]), large + 2.0);
        assert_eq!(sum(&[1.0, 1.0, large, 0.0, 1.0, 1.0]), large + 4.0);
    }
}
