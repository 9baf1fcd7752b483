//! Dropout, forward and backward alike.

use backend::ops::DropoutMask;
use backend::philox::drop_below;

use crate::Real;

/// Whether element `i` of the stream is kept at that probability of being dropped.
pub fn kept(stream: backend::philox::Stream, p: f32, i: u64) -> bool {
    stream.word(i) >= drop_below(p)
}

/// `mask x / (1 - p)`.
pub fn forward<R: Real>(x: &[R], mask: &DropoutMask) -> Vec<R> {
    // Two roundings: whether a device multiplies by 1 / (1 - p) in f32 or divides is its own choice.
    let scale = (R::exact(1.0) / R::exact(1.0 - f64::from(mask.p))).rounded(2.0 * crate::U);
    let apply = |(i, &x): (usize, &R)| match kept(mask.stream, mask.p, mask.first + i as u64) {
        true => x * scale,
        false => R::zero(),
    };
    x.iter().enumerate().map(apply).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};
    use backend::philox::Stream;

    #[test]
    fn against_differences() {
        let mask = DropoutMask { p: 0.25, stream: Stream { seed: 3, stream: 4 }, first: 5 };
        let (x, dy) = (normal(1, 40), normal(2, 40));
        check("dx", &x, &forward(&dy, &mask), |x| weigh(&dy, &forward(x, &mask)));
        assert!(forward(&x, &mask).contains(&0.0));
    }
}
