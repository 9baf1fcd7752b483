//! Vectors of f32 as wide as the processor has them, chosen at run time: [`kernel!`] compiles a function for each instruction set, [`Lanes`] is one vector,
//! loaded from and stored to memory of any [`Element`] type.
//!
//! Everything here is inlined into the kernel, so that it is compiled with the kernel's instruction set. Sums over a row go lane by lane, then over the
//! lanes: a fixed order for a given machine.

use std::cell::Cell;
use std::ops::{Add, Div, Mul, Sub};

use pulp::Simd;

use crate::element::Element;

/// A function whose body is compiled for each instruction set and dispatched on the processor's own. Type parameters are
/// [`Element`]s.
macro_rules! kernel {
    (@output) => { () };
    (@output $output:ty) => { $output };
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$life:lifetime, $S:ident $(, $T:ident)*>(
        $simd:ident $(, $arg:ident: $type:ty)* $(,)?
    ) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$life, $($T: $crate::element::Element),*>($($arg: $type),*) $(-> $output)? {
            struct Kernel<$life, $($T),*> {
                $($arg: $type,)*
                life: std::marker::PhantomData<(&$life (), $($T),*)>,
            }
            impl<$life, $($T: $crate::element::Element),*> pulp::WithSimd for Kernel<$life, $($T),*> {
                type Output = kernel!(@output $($output)?);
                #[inline(always)]
                fn with_simd<$S: pulp::Simd>(self, $simd: $S) -> Self::Output {
                    let Self { $($arg,)* life: _ } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Kernel { $($arg,)* life: std::marker::PhantomData })
        }
    };
}

/// Runs the body for each vector of `0 .. n`: `i` is its first element, `w` its width, the full one except perhaps in the last.
macro_rules! lanes {
    ($S:ident, $n:expr, |$i:ident, $w:ident| $body:block) => {{
        let n: usize = $n;
        let mut $i = 0;
        while $i + $S::F32_LANES <= n {
            let $w = $S::F32_LANES;
            $body
            $i += $S::F32_LANES;
        }
        if $i < n {
            let $w = n - $i;
            $body
        }
    }};
}

pub(crate) use {kernel, lanes};

/// One vector.
pub(crate) struct Lanes<S: Simd> {
    simd: S,
    v: S::f32s,
}

impl<S: Simd> Clone for Lanes<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd> Copy for Lanes<S> {}

impl<S: Simd> Lanes<S> {
    /// `x` in every lane.
    #[inline(always)]
    pub(crate) fn splat(simd: S, x: f32) -> Self {
        Self { simd, v: simd.splat_f32s(x) }
    }

    /// A vector of the same kind with `x` in every lane.
    #[inline(always)]
    pub(crate) fn like(self, x: f32) -> Self {
        Self::splat(self.simd, x)
    }

    /// A vector of the same kind with these elements.
    #[inline(always)]
    pub(crate) fn loaded(self, x: &[Cell<f32>]) -> Self {
        Self::load(self.simd, x, 0, S::F32_LANES)
    }

    /// Elements `i .. i + w`; 0 in the other lanes.
    #[inline(always)]
    pub(crate) fn load<T: Element>(simd: S, x: &[Cell<T>], i: usize, w: usize) -> Self {
        Self { simd, v: T::load(simd, &x[i..i + w], w) }
    }

    /// Elements `i .. i + w`; `fill` in the other lanes.
    #[inline(always)]
    pub(crate) fn load_or<T: Element>(simd: S, x: &[Cell<T>], i: usize, w: usize, fill: f32) -> Self {
        let loaded = Self::load(simd, x, i, w);
        match w == S::F32_LANES {
            true => loaded,
            false => {
                let inside = simd.mask_between_m32s(0, w as u32).mask();
                Self { simd, v: simd.select_f32s(inside, loaded.v, simd.splat_f32s(fill)) }
            }
        }
    }

    /// Writes elements `i .. i + w`.
    #[inline(always)]
    pub(crate) fn store<T: Element>(self, x: &[Cell<T>], i: usize, w: usize) {
        T::store(self.simd, self.v, &x[i..i + w], w);
    }

    /// What is read back where it is stored as that type.
    #[inline(always)]
    pub(crate) fn rounded<T: Element>(self) -> Self {
        Self { v: T::round(self.simd, self.v), ..self }
    }

    /// `self b + c`, rounded once where the processor can.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        Self { v: self.simd.mul_add_e_f32s(self.v, b.v, c.v), ..self }
    }

    /// The square root.
    #[inline(always)]
    pub(crate) fn sqrt(self) -> Self {
        Self { v: self.simd.sqrt_f32s(self.v), ..self }
    }

    /// The larger, `self` where `other` is NaN.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        let larger = self.simd.greater_than_f32s(other.v, self.v);
        Self { v: self.simd.select_f32s(larger, other.v, self.v), ..self }
    }

    /// `self`, at least `low` and at most `high`; NaN stays.
    #[inline(always)]
    pub(crate) fn clamp(self, low: f32, high: f32) -> Self {
        let simd = self.simd;
        let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
        let v = simd.select_f32s(simd.less_than_f32s(self.v, low), low, self.v);
        Self { simd, v: simd.select_f32s(simd.greater_than_f32s(v, high), high, v) }
    }

    /// `self` where `x` is not NaN, else NaN.
    #[inline(always)]
    pub(crate) fn unless_nan(self, x: Self) -> Self {
        let ordered = self.simd.equal_f32s(x.v, x.v);
        Self { v: self.simd.select_f32s(ordered, self.v, x.v), ..self }
    }

    /// The lanes' sum, in a fixed order.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        self.simd.reduce_sum_f32s(self.v)
    }

    /// The largest lane; any of them if one is NaN.
    #[inline(always)]
    pub(crate) fn largest_number(self) -> f32 {
        self.simd.reduce_max_f32s(self.v)
    }

    /// The largest lane, NaN if one of them is NaN.
    #[inline(always)]
    pub(crate) fn largest(self) -> f32 {
        let mut lanes = [0.0; 64];
        let lanes = &mut lanes[..S::F32_LANES];
        self.simd.partial_store_f32s(lanes, self.v);
        lanes.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max || x.is_nan() { x } else { max })
    }

    /// The exponential, within 1.1 units in the last place; 0 below e^-86.9, where the result would be smaller than 2^-125.
    ///
    /// `e^x = 2^n e^r` with `n` the integer next to `x / ln 2`, and `e^r` by its Taylor series to the seventh power, whose remainder on `|r| <= ln 2 / 2`
    /// is below 2^-27.
    #[inline(always)]
    pub(crate) fn exp(self) -> Self {
        /// Adding it leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        /// ln 2 in two parts, the first with few enough bits that its product with `n` is exact.
        const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        /// Below it the result is taken for 0.
        const LOWEST: f32 = -86.9;
        let simd = self.simd;
        // Above 88.8 the result is infinite, and `n` stays a valid exponent.
        let highest = simd.splat_f32s(88.8);
        let x = Self { v: simd.select_f32s(simd.greater_than_f32s(self.v, highest), highest, self.v), simd };
        let rounded = x.mul_add(x.like(std::f32::consts::LOG2_E), x.like(ROUND));
        let n = rounded - x.like(ROUND);
        let r = n.mul_add(x.like(-LN2[1]), n.mul_add(x.like(-LN2[0]), x));
        // Twice the series, and half the power of two: so that n = 128 is in reach.
        let series = [1.0 / 360.0, 1.0 / 60.0, 1.0 / 12.0, 1.0 / 3.0, 1.0, 2.0, 2.0];
        let twice = series.iter().fold(x.like(1.0 / 2520.0), |sum, &c| sum.mul_add(r, x.like(c)));
        let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded.v), simd.splat_u32s(23));
        let power = simd.transmute_f32s_u32s(simd.add_u32s(bits, simd.splat_u32s(126 << 23)));
        let v = simd.mul_f32s(twice.v, power);
        let tiny = simd.less_than_f32s(self.v, simd.splat_f32s(LOWEST));
        Self { simd, v: simd.select_f32s(tiny, simd.splat_f32s(0.0), v) }
    }
}

impl<S: Simd> Add for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { v: self.simd.add_f32s(self.v, other.v), ..self }
    }
}

impl<S: Simd> Sub for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self { v: self.simd.sub_f32s(self.v, other.v), ..self }
    }
}

impl<S: Simd> Mul for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self { v: self.simd.mul_f32s(self.v, other.v), ..self }
    }
}

impl<S: Simd> Div for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self { v: self.simd.div_f32s(self.v, other.v), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    kernel! {
        fn exp_all<'a, S>(simd, x: &'a [Cell<f32>]) {
            lanes!(S, x.len(), |i, w| { Lanes::load(simd, x, i, w).exp().store(x, i, w); });
        }
    }

    kernel! {
        fn sum_and_max<'a, S>(simd, x: &'a [Cell<f32>]) -> (f32, f32) {
            let (mut sum, mut max) = (Lanes::splat(simd, 0.0), Lanes::splat(simd, f32::NEG_INFINITY));
            lanes!(S, x.len(), |i, w| {
                sum = sum + Lanes::load(simd, x, i, w);
                max = max.max(Lanes::load_or(simd, x, i, w, f32::NEG_INFINITY));
            });
            (sum.sum(), max.largest())
        }
    }

    fn exp(x: f32) -> f32 {
        let x = [Cell::new(x)];
        exp_all(&x);
        x[0].get()
    }

    #[test]
    fn exp_is_within_its_bound() {
        let points: Vec<f32> = (0..2_000_003).map(|i| -86.8 + i as f32 * (175.4 / 2_000_003.0)).collect();
        let cells: Vec<Cell<f32>> = points.iter().copied().map(Cell::new).collect();
        exp_all(&cells);
        let mut worst = 0.0f64;
        for (x, y) in points.iter().zip(&cells) {
            let exact = f64::from(*x).exp();
            let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
            worst = worst.max((f64::from(y.get()) - exact).abs() / ulp);
        }
        assert!(worst < 1.1, "{worst} units in the last place");
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([-0.0, f32::MIN_POSITIVE, -1e-45].map(exp), [1.0; 3]);
        assert_eq!([-87.0, -1e10, f32::NEG_INFINITY].map(exp), [0.0; 3]);
        assert_eq!([88.8, 1e10, f32::INFINITY].map(exp), [f32::INFINITY; 3]);
        assert!(exp(88.72).is_finite() && exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
    }

    #[test]
    fn tails_are_masked() {
        for n in 1..70 {
            let x: Vec<Cell<f32>> = (0..n).map(|i| Cell::new(-1.0 - i as f32)).collect();
            assert_eq!(sum_and_max(&x), (-(n * (n + 1) / 2) as f32, -1.0));
        }
    }
}
