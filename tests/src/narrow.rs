//! Element types of 16 bits, element by element: the bits that memory holds for a number, the number for the bits, and how far apart two numbers are.

use backend::DType;
use half::{bf16, f16};

/// The bits of a number in that type, rounded to nearest even.
///
/// # Panics
/// If the type is not a float.
pub fn to_bits(dtype: DType, x: f32) -> u32 {
    match dtype {
        DType::F32 => x.to_bits(),
        DType::Bf16 => u32::from(bf16::from_f32_const(x).to_bits()),
        DType::F16 => u32::from(f16::from_f32_const(x).to_bits()),
        DType::U32 => panic!("a token index is not a float"),
    }
}

/// The number of those bits; token indices as they are.
pub fn from_bits(dtype: DType, bits: u32) -> f32 {
    match dtype {
        DType::F32 | DType::U32 => f32::from_bits(bits),
        DType::Bf16 => bf16::from_bits(bits as u16).to_f32_const(),
        DType::F16 => f16::from_bits(bits as u16).to_f32_const(),
    }
}

/// The numbers rounded to that type.
pub fn rounded(dtype: DType, x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| from_bits(dtype, to_bits(dtype, x))).collect()
}

/// Half the distance between two numbers of that type next to one of this size: what its rounding may add. 0 for f32, whose rounding is part of the bounds.
pub fn half_ulp(dtype: DType, size: f64) -> f64 {
    // Bits of the significand after the leading one; the exponent of the smallest normal number.
    let (bits, lowest) = match dtype {
        DType::F32 | DType::U32 => return 0.0,
        DType::Bf16 => (7, -126),
        DType::F16 => (10, -14),
    };
    let exponent = (size.abs().log2().floor() as i32).max(lowest);
    2f64.powi(exponent - bits - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        assert_eq!(to_bits(DType::Bf16, 1.0), 0x3f80);
        assert_eq!(to_bits(DType::F16, 1.0), 0x3c00);
        // Ties go to even.
        assert_eq!(rounded(DType::Bf16, &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]), [1.0, 1.0 + 4.0 / 256.0]);
        assert_eq!(rounded(DType::F16, &[2049.0, 2051.0, 1e-8, 1e6]), [2048.0, 2052.0, 0.0, f32::INFINITY]);
        assert_eq!(half_ulp(DType::Bf16, 1.99), 1.0 / 256.0);
        assert_eq!(half_ulp(DType::F16, -2.0), 1.0 / 1024.0);
        assert_eq!(half_ulp(DType::F16, 0.0), 2f64.powi(-25));
    }

    /// Nothing is farther from its rounding, and something is as far.
    #[test]
    fn half_an_ulp_is_what_rounding_adds() {
        for dtype in [DType::Bf16, DType::F16] {
            let mut worst = 0.0f64;
            for i in 0..20_000 {
                let x = 0.001 + i as f32 * 0.000_37;
                let error = f64::from((rounded(dtype, &[x])[0] - x).abs());
                worst = worst.max(error / half_ulp(dtype, f64::from(x)));
            }
            assert!((0.99..=1.0).contains(&worst), "{dtype}: {worst}");
        }
    }
}
