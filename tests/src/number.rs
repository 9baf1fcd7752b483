//! The numbers that the references compute with: plain `f64`, or [`Bounded`], an `f64` that carries how far an f32 computation may be from it.
//!
//! Each reference is written once over [`Real`]. With `f64` it is differentiated by finite differences; with [`Bounded`] it gives the expected value and
//! the tolerance of every output element (Wilkinson's running error analysis): each primitive adds its own rounding and passes on those of its
//! operands, to first order and with absolute values. So a tolerance is never chosen for an operation: it follows from these rules alone.
//!
//! | primitive | own error, u = 2^-24 | because |
//! |---|---|---|
//! | an operand that is subnormal | itself | WGSL: it may be read as 0 |
//! | `+ - *` | `u abs(result)` | correctly rounded everywhere, WGSL included |
//! | `/` | `5 u` relative | WGSL: 2.5 ULP |
//! | `sqrt` | `9 u` relative | WGSL: inherited from `1 / inverseSqrt` (2 ULP) |
//! | `exp` | `2 (3 + 2 abs(x)) u` relative | WGSL: 3 + 2 abs(x) ULP |
//! | `ln` | `8 u` absolute in [0.5, 2], `6 u` relative outside | WGSL |
//! | `tanh` | as `1 - 2 / (exp(2x) + 1)`, 1 or -1 beyond 20 | WGSL leaves it to the implementation |
//! | sum of n terms | `growth(n) u sum abs(term)` | any order, fused or not |
//! | storing as 16 bits | half an ulp of that type | arithmetic is f32, each output is rounded once |

use std::ops::{Add, Div, Mul, Neg, Sub};

use backend::DType;

use crate::narrow::half_ulp;

/// Unit roundoff of f32, 2^-24: half the distance from 1 to the next number.
pub const U: f64 = 1.0 / 16_777_216.0;

/// What rounding multiplies `u sum |term|` by, in a sum of `n` terms in any order.
///
/// The worst case is `n - 1` (Higham 2002, section 4.2); for roundings that are not in league it is `lambda sqrt(n)` (Higham & Mary 2019), and lambda
/// is 3 here. Terms of one sign, added one by one, come nearest: a rounding's standard deviation is u / sqrt(3) of a partial sum that grows like i / n, so
/// that of the whole is `sqrt(n) u sum / 3`, and the bound is nine of them. It still tells f32 from any narrower accumulation, as `n - 1` would not.
pub fn growth(n: usize) -> f64 {
    let n = n as f64;
    (n - 1.0).max(0.0).min(3.0 * n.sqrt())
}

/// A number that a reference computes with.
pub trait Real:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// A number that both sides know exactly.
    fn exact(x: f64) -> Self;
    /// The number itself.
    fn value(self) -> f64;
    /// Its square root.
    fn sqrt(self) -> Self;
    /// e to its power.
    fn exp(self) -> Self;
    /// Its natural logarithm.
    fn ln(self) -> Self;
    /// Its hyperbolic tangent.
    fn tanh(self) -> Self;
    /// A sum to which terms are added one at a time; [`sum`](Self::sum) makes it at once.
    type Sum: Copy + Default;
    /// Adds a term.
    fn add_to(sum: &mut Self::Sum, term: Self);
    /// What it comes to, whatever order a device adds in.
    fn total(sum: Self::Sum) -> Self;
    /// The sum of the terms, in any order.
    fn sum(terms: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::Sum::default();
        terms.into_iter().for_each(|term| Self::add_to(&mut sum, term));
        Self::total(sum)
    }
    /// The same number after further roundings, of that relative size together, that the formula does not show.
    fn rounded(self, relative: f64) -> Self;

    /// 0.
    fn zero() -> Self {
        Self::exact(0.0)
    }
    /// The larger one.
    fn max(self, other: Self) -> Self {
        if other.value() > self.value() { other } else { self }
    }
}

impl Real for f64 {
    fn exact(x: f64) -> Self {
        x
    }
    fn value(self) -> f64 {
        self
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
    type Sum = f64;
    fn add_to(sum: &mut f64, term: Self) {
        *sum += term;
    }
    fn total(sum: f64) -> Self {
        sum
    }
    fn rounded(self, _relative: f64) -> Self {
        self
    }
}

/// A number, and how far an f32 computation of it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The number, in f64.
    pub value: f64,
    /// Bound of the absolute error.
    pub error: f64,
}

/// A sum of [`Bounded`] terms in the making: how many, their sum, that of their magnitudes and that of their errors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundedSum {
    n: usize,
    value: f64,
    absolute: f64,
    inherited: f64,
}

impl Bounded {
    /// `value` with the error inherited and one more rounding of `relative`.
    fn new(value: f64, inherited: f64, relative: f64) -> Self {
        Self { value, error: inherited + relative * (value.abs() + inherited) }
    }
}

impl Add for Bounded {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.value + other.value, self.error + other.error, U)
    }
}

impl Sub for Bounded {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Bounded {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, error: self.error }
    }
}

impl Mul for Bounded {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let inherited =
            self.value.abs() * other.error + self.error * other.value.abs() + self.error * other.error;
        Self::new(self.value * other.value, inherited, U)
    }
}

impl Div for Bounded {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        // The divisor may be as small as this; where it may be 0, nothing is promised.
        let least = other.value.abs() - other.error;
        let inherited = if least > 0.0 {
            (self.error + value.abs() * other.error) / least
        } else if self.value == 0.0 && self.error == 0.0 {
            0.0
        } else {
            f64::INFINITY
        };
        Self::new(value, inherited, 5.0 * U)
    }
}

impl Real for Bounded {
    fn exact(x: f64) -> Self {
        let subnormal = x.abs() < f64::from(f32::MIN_POSITIVE);
        Self { value: x, error: if subnormal { x.abs() } else { 0.0 } }
    }
    fn value(self) -> f64 {
        self.value
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        let above = (self.value + self.error).sqrt() - value;
        let below = value - (self.value - self.error).max(0.0).sqrt();
        Self::new(value, above.max(below), 9.0 * U)
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self::new(value, value * self.error.exp_m1(), 2.0 * (3.0 + 2.0 * self.value.abs()) * U)
    }
    fn ln(self) -> Self {
        let value = self.value.ln();
        let least = self.value - self.error;
        let inherited = if least > 0.0 { self.error / least } else { f64::INFINITY };
        match (0.5..=2.0).contains(&self.value) {
            true => Self { value, error: inherited + 8.0 * U },
            false => Self::new(value, inherited, 6.0 * U),
        }
    }
    fn tanh(self) -> Self {
        if self.value.abs() - self.error > 20.0 {
            // 1 in f32; but a form of the function around it that never takes 1 - tanh sees the difference, or that of 20 if it holds its exponents there.
            return Self { value: self.value.signum(), error: 4.0 * (-40.0_f64).exp() };
        }
        // With E = exp(2x), relative error r: dE = (1 - t^2) / 2 * r of the result, an inherited dx counts (1 - t^2) dx; the sum E + 1, the quotient
        // and the last difference are all of size up to 2 while the result may be small: 8 u in all, absolute.
        let value = self.value.tanh();
        let slope = 1.0 - value * value;
        let exponential = 2.0 * (3.0 + 4.0 * self.value.abs()) * U;
        Self { value, error: slope * self.error + slope / 2.0 * exponential + 8.0 * U }
    }
    type Sum = BoundedSum;
    fn add_to(sum: &mut BoundedSum, term: Self) {
        sum.n += 1;
        sum.value += term.value;
        sum.absolute += term.value.abs();
        sum.inherited += term.error;
    }
    fn total(sum: BoundedSum) -> Self {
        let BoundedSum { n, value, absolute, inherited } = sum;
        Self { value, error: inherited + growth(n) * U * (absolute + inherited) }
    }
    fn rounded(self, relative: f64) -> Self {
        Self::new(self.value, self.error, relative)
    }
}

impl Bounded {
    /// What is read back where the number is stored as that type.
    pub fn stored(self, dtype: DType) -> Self {
        Self { error: self.error + half_ulp(dtype, self.value.abs() + self.error), ..self }
    }
}

/// Each as [`Bounded::stored`].
pub fn stored(dtype: DType, x: &[Bounded]) -> Vec<Bounded> {
    x.iter().map(|x| x.stored(dtype)).collect()
}

/// Numbers that both sides know exactly: operands.
pub fn exact<R: Real>(x: &[f32]) -> Vec<R> {
    x.iter().map(|&x| R::exact(f64::from(x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backend::philox::Stream;

    #[test]
    fn a_subnormal_operand_may_be_read_as_0() {
        let error = |x: f32| (Bounded::exact(f64::from(x)) * Bounded::exact(-1.5)).error;
        assert!(error(1.1e-38) >= 1.65e-38 && error(-1.1e-38) < 1.7e-38);
        assert!(error(f32::MIN_POSITIVE) < 1e-44 && error(0.0) == 0.0);
    }

    /// The same f32 computation, in f32: must stay inside the bound, and not absurdly far inside.
    #[test]
    fn bounds_hold_for_plain_f32() {
        let stream = Stream { seed: 1, stream: 1 };
        for n in [1_usize, 2, 31, 1000, 20_000] {
            let terms: Vec<f32> = (0..n as u64).map(|i| stream.uniform(i)).collect();
            let expected = Bounded::sum(exact::<Bounded>(&terms));
            let got: f32 = terms.iter().sum();
            let error = (f64::from(got) - expected.value).abs();
            assert!(error <= expected.error, "{n}: {error} > {}", expected.error);
            assert!(
                expected.error <= 4.0 * (n as f64).sqrt() * U * expected.value,
                "{n}: {}",
                expected.error
            );
        }
        for i in 0..1000 {
            let x = stream.normal(i) as f32 * 4.0;
            let exact = Bounded::exact(f64::from(x));
            for (name, expected, got) in [
                ("exp", exact.exp(), x.exp()),
                ("tanh", exact.tanh(), 1.0 - 2.0 / ((2.0 * x).exp() + 1.0)),
                ("sqrt", (exact * exact + Bounded::exact(1.0)).sqrt(), (x * x + 1.0).sqrt()),
                ("quotient", exact / (exact * exact + Bounded::exact(1.0)), x / (x * x + 1.0)),
                ("ln", (exact * exact + Bounded::exact(1.0)).ln(), (x * x + 1.0).ln()),
            ] {
                let error = (f64::from(got) - expected.value).abs();
                assert!(error <= expected.error, "{name}({x}): {error} > {}", expected.error);
            }
        }
    }
}
