//! The floating-point types of memory. Arithmetic is in f32: an element is widened, exactly, when it is loaded, and rounded to nearest even when it is
//! stored.
//!
//! The conversions have no branch and go over whole vectors, of which the compiler makes vector instructions; a part of a vector is padded, so that an
//! element's bits do not depend on where it stands.

use std::cell::Cell;

use backend::DType;
use half::{bf16, f16};
use pulp::Simd;

/// A type that memory holds and kernels load and store.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Its name in the contract.
    const DTYPE: DType;

    /// Its value.
    fn widen(self) -> f32;

    /// The element nearest to the value, of two the even one.
    fn narrow(x: f32) -> Self;

    /// The first `w` elements, at most a vector; 0 in the other lanes.
    #[inline(always)]
    fn load<S: Simd>(_simd: S, x: &[Cell<Self>], w: usize) -> S::f32s {
        let mut bits = [0.0f32; LANES];
        match w == S::F32_LANES {
            true => {
                for (to, from) in bits[..S::F32_LANES].iter_mut().zip(&x[..S::F32_LANES]) {
                    *to = from.get().widen();
                }
            }
            false => {
                let mut padded = [Self::default(); LANES];
                for (to, from) in padded.iter_mut().zip(&x[..w]) {
                    *to = from.get();
                }
                for (to, from) in bits[..S::F32_LANES].iter_mut().zip(padded) {
                    *to = from.widen();
                }
            }
        }
        // SAFETY: an array of at least as many floats as the vector has lanes (`LANES`).
        unsafe { bits.as_ptr().cast::<S::f32s>().read_unaligned() }
    }

    /// Writes the first `w` lanes, at most all.
    #[inline(always)]
    fn store<S: Simd>(_simd: S, v: S::f32s, x: &[Cell<Self>], w: usize) {
        let lanes = lanes_of::<S>(v);
        match w == S::F32_LANES {
            true => {
                for (to, from) in x[..S::F32_LANES].iter().zip(&lanes[..S::F32_LANES]) {
                    to.set(Self::narrow(*from));
                }
            }
            false => {
                let mut padded = [Self::default(); LANES];
                for (to, from) in padded[..S::F32_LANES].iter_mut().zip(&lanes[..S::F32_LANES]) {
                    *to = Self::narrow(*from);
                }
                for (to, from) in x[..w].iter().zip(padded) {
                    to.set(from);
                }
            }
        }
    }

    /// Each lane rounded to this type.
    #[inline(always)]
    fn round<S: Simd>(_simd: S, v: S::f32s) -> S::f32s {
        let mut lanes = lanes_of::<S>(v);
        for lane in &mut lanes[..S::F32_LANES] {
            *lane = Self::narrow(*lane).widen();
        }
        // SAFETY: as in `load`.
        unsafe { lanes.as_ptr().cast::<S::f32s>().read_unaligned() }
    }
}

/// As many lanes as the widest vector has.
const LANES: usize = 16;

#[inline(always)]
fn lanes_of<S: Simd>(v: S::f32s) -> [f32; LANES] {
    const { assert!(S::F32_LANES <= LANES) };
    let mut lanes = [0.0; LANES];
    // SAFETY: an array of at least as many floats as the vector has lanes.
    unsafe { lanes.as_mut_ptr().cast::<S::f32s>().write_unaligned(v) };
    lanes
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[Cell<f32>], w: usize) -> S::f32s {
        let start = x[..w].as_ptr().cast::<f32>();
        match w == S::F32_LANES {
            // SAFETY: as many elements as lanes; a vector is plain data.
            true => unsafe { start.cast::<S::f32s>().read_unaligned() },
            // SAFETY: only the first `w` are read.
            false => unsafe { simd.mask_load_ptr_f32s(simd.mask_between_m32s(0, w as u32), start) },
        }
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::f32s, x: &[Cell<f32>], w: usize) {
        let start = x[..w].as_ptr().cast::<f32>().cast_mut();
        match w == S::F32_LANES {
            // SAFETY: as many elements as lanes, in cells.
            true => unsafe { start.cast::<S::f32s>().write_unaligned(v) },
            // SAFETY: only the first `w` are written, in cells.
            false => unsafe {
                simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, w as u32), start, v);
            },
        }
    }

    #[inline(always)]
    fn round<S: Simd>(_simd: S, v: S::f32s) -> S::f32s {
        v
    }
}

/// Either of two numbers, without a branch.
#[inline(always)]
fn select(condition: bool, yes: u32, no: u32) -> u32 {
    if condition { yes } else { no }
}

/// The bits of infinity: those of NaN are above.
const INFINITY: u32 = 0x7f80_0000;

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        // Half of the last place, less one where what stays is even: a tie goes up only from odd.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        Self::from_bits(select(bits & 0x7fff_ffff > INFINITY, quiet, rounded) as u16)
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;

    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        // The exponent's bias is 15 there and 127 here. As a product, it is right for subnormal numbers too.
        const SCALE: f32 = f32::from_bits((127 + 112) << 23);
        let finite = (f32::from_bits(rest) * SCALE).to_bits();
        f32::from_bits(sign | select(rest >= 0x1f << 23, rest | INFINITY, finite))
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let (sign, size) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
        // From 2^-14 on: another bias, and 13 bits less. What rounds up beyond the largest number has the bits of infinity.
        let normal = (size
            .wrapping_add((15u32.wrapping_sub(127) << 23).wrapping_add(0xfff + ((size >> 13) & 1))))
            >> 13;
        // Below: a multiple of 2^-24, which is the last place of 1/2.
        let subnormal = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let beyond = select(size > INFINITY, 0x7e00 | ((size >> 13) & 0x3ff), 0x7c00);
        let rest = select(size < (127 - 14) << 23, subnormal, normal);
        Self::from_bits((sign | select(size >= (127 + 16) << 23, beyond, rest)) as u16)
    }
}

/// Evaluates the expression with `T` the element type of that name. For token indices it is f32: the operation's `check` refuses them.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            backend::DType::F32 | backend::DType::U32 => {
                type $T = f32;
                $body
            }
            backend::DType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            backend::DType::F16 => {
                type $T = half::f16;
                $body
            }
        }
    };
}

pub(crate) use by_dtype;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of 16 bits, and back.
    #[test]
    fn widening_is_exact() {
        for bits in 0..=u16::MAX {
            let (a, b) = (bf16::from_bits(bits), f16::from_bits(bits));
            match a.is_nan() {
                true => assert!(a.widen().is_nan(), "bf16 {bits:#x}"),
                false => {
                    assert_eq!(a.widen().to_bits(), a.to_f32().to_bits(), "bf16 {bits:#x}");
                    assert_eq!(bf16::narrow(a.widen()).to_bits(), bits);
                }
            }
            match b.is_nan() {
                true => assert!(b.widen().is_nan(), "f16 {bits:#x}"),
                false => {
                    assert_eq!(b.widen().to_bits(), b.to_f32().to_bits(), "f16 {bits:#x}");
                    assert_eq!(f16::narrow(b.widen()).to_bits(), bits);
                }
            }
        }
    }

    /// Ties, their neighbours, and numbers from all over, against the `half` crate's conversions one by one.
    #[test]
    fn narrowing_is_to_nearest_even() {
        let ties = (0..=u32::from(u16::MAX))
            .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| high << 16 | low));
        let f16_ties =
            (0..1 << 19).flat_map(|high: u32| [0, 0xfff, 0x1000, 0x1001].map(|low| high << 13 | low));
        let spread = (0..2_000_000u32).map(|i| i.wrapping_mul(0x9e37_79b1));
        for bits in ties.chain(f16_ties).chain(spread) {
            let x = f32::from_bits(bits);
            let (a, b) = (bf16::narrow(x), f16::narrow(x));
            match x.is_nan() {
                true => assert!(a.is_nan() && b.is_nan(), "{bits:#x}"),
                false => {
                    assert_eq!(a.to_bits(), bf16::from_f32_const(x).to_bits(), "bf16 of {bits:#x}");
                    assert_eq!(b.to_bits(), f16::from_f32_const(x).to_bits(), "f16 of {bits:#x}");
                }
            }
        }
    }
}
