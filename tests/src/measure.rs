//! How far an output may be from its reference, and how far it is: two gates.
//!
//! *By component*: each element's error is at most the bound that its own arithmetic gives ([`Bounded`]). *As a whole*: roundings that are not in league are spread
//! evenly over their bounds, so that the mean of `(error / bound)^2` is a third (a uniform distribution's variance) or less; more than a half, over enough
//! different elements, is an error of its own kind, which no single element may show. Each error is taken by its own bound, since in `sum error^2` a few large
//! elements that round alike would speak for all.

use crate::{Bounded, Failure};

/// The output that came nearest to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// Its worst element's error over that element's limit, or the mean square over its limit, whichever is more.
    pub ratio: f64,
    /// Its name.
    pub operand: &'static str,
    /// Its worst element.
    pub index: usize,
    /// What that is.
    pub observed: f32,
    /// What it should be.
    pub expected: f64,
    /// How far it may be from that.
    pub limit: f64,
    /// `sum error^2 / sum expected^2`, as reports have it.
    pub nmse: f64,
    /// The mean of `(error / bound)^2`, at most [`SPREAD`]; none where there are too few different elements to say.
    pub spread: Option<f64>,
}

impl Measure {
    /// That of what has no error: bits that are as they must be.
    pub fn exact() -> Self {
        Self::default()
    }

    /// The one nearer to its limit.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.ratio > self.ratio || (self.operand.is_empty() && !other.operand.is_empty()) {
            other
        } else {
            self
        }
    }
}

/// What the mean of `(error / bound)^2` may be.
pub const SPREAD: f64 = 0.5;

/// Different errors that it takes to speak of their mean.
const ENOUGH: usize = 256;

/// Compares element by element and as a whole.
///
/// # Errors
/// [`Failure::Wrong`] with the worst element, [`Failure::Spread`] with the mean.
pub fn compare(operand: &'static str, got: &[f32], expected: &[Bounded]) -> Result<Measure, Failure> {
    assert_eq!(got.len(), expected.len(), "{operand}");
    // A device may flush subnormal results, and operands, to 0.
    let flush = f64::from(f32::MIN_POSITIVE);
    let (mut worst, mut at, mut beyond) = (0.0, 0, 0);
    let (mut errors, mut shares, mut size, mut finite) = (0.0, 0.0, 0.0, 0);
    let mut distinct = std::collections::HashSet::new();
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        // The expected value is itself rounded to f64 only; the result's own rounding is part of its bound.
        let error = (f64::from(got) - expected.value).abs();
        let within = match expected.value.is_nan() {
            true => got.is_nan(),
            false if expected.value.is_infinite() => f64::from(got) == expected.value,
            false => error <= expected.error + flush,
        };
        beyond += usize::from(!within);
        let ratio = match (within, error.is_finite() && expected.error.is_finite()) {
            (true, false) => 0.0,
            (false, false) => f64::INFINITY,
            _ => error / (expected.error + flush),
        };
        if ratio > worst {
            (worst, at) = (ratio, i);
        }
        if error.is_finite() && expected.error.is_finite() {
            errors += error * error;
            let share = error / (expected.error + flush);
            shares += share * share;
            finite += 1;
            size += expected.value * expected.value;
            if distinct.len() < ENOUGH {
                distinct.insert(error.to_bits());
            }
        }
    }
    if beyond > 0 {
        return Err(Failure::Wrong {
            operand,
            index: at,
            observed: got[at],
            expected: expected[at].value,
            limit: expected[at].error + flush,
            beyond,
            len: got.len(),
        });
    }
    let nmse = if size > 0.0 { errors / size } else { errors };
    let spread = (distinct.len() >= ENOUGH).then(|| shares / f64::from(finite));
    if let Some(spread) = spread.filter(|spread| *spread > SPREAD) {
        return Err(Failure::Spread { operand, spread, nmse, len: got.len() });
    }
    let (observed, value, limit) = match got.get(at) {
        Some(&observed) => (observed, expected[at].value, expected[at].error + flush),
        None => (0.0, 0.0, 0.0),
    };
    let ratio = spread.map_or(worst, |spread| worst.max(spread / SPREAD));
    Ok(Measure { ratio, operand, index: at, observed, expected: value, limit, nmse, spread })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors spread evenly over their bounds pass, and those that crowd near them do not, though none is beyond.
    #[test]
    fn errors_in_league_are_found() {
        let bounded = vec![Bounded { value: 1.0, error: 1e-3 }; 1000];
        let spread: Vec<f32> = (0..1000).map(|i| 1.0 + 1e-3 * (i as f32 / 500.0 - 1.0)).collect();
        let measure = compare("y", &spread, &bounded).unwrap();
        assert!((measure.spread.unwrap() - 1.0 / 3.0).abs() < 0.01, "{measure:?}");
        assert!(measure.ratio > 0.98 && measure.ratio < 1.01);
        let crowded: Vec<f32> = (0..1000).map(|i| 1.0 + 1e-3 * (0.75 + 0.24 * i as f32 / 1000.0)).collect();
        assert!(matches!(compare("y", &crowded, &bounded), Err(Failure::Spread { .. })));
    }

    #[test]
    fn what_is_not_finite_must_be_so() {
        let expected = [f64::NAN, f64::INFINITY, 1.0].map(<Bounded as crate::Real>::exact);
        assert_eq!(compare("y", &[f32::NAN, f32::INFINITY, 1.0], &expected).unwrap().ratio, 0.0);
        for got in [
            [0.0, f32::INFINITY, 1.0],
            [f32::NAN, f32::MAX, 1.0],
            [f32::NAN, f32::NAN, 1.0],
            [f32::NAN, f32::INFINITY, f32::NAN],
        ] {
            assert!(compare("y", &got, &expected).is_err(), "{got:?}");
        }
    }
}
