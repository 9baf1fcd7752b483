//! The tanh form of GELU.

use crate::Real;

/// The factor of the cube.
const CUBE: f64 = 0.044715;

fn root<R: Real>() -> R {
    // An f32 constant on the device.
    R::exact((2.0 / std::f64::consts::PI).sqrt()).rounded(crate::U)
}

fn argument<R: Real>(x: R) -> R {
    root::<R>() * (x + R::exact(CUBE).rounded(crate::U) * x * x * x)
}

/// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
pub fn forward<R: Real>(x: &[R]) -> Vec<R> {
    let half = R::exact(0.5);
    x.iter().map(|&x| half * x * (R::exact(1.0) + argument(x).tanh())).collect()
}

/// Its derivative at `x`, times `dy`.
pub fn backward<R: Real>(x: &[R], dy: &[R]) -> Vec<R> {
    let (half, one) = (R::exact(0.5), R::exact(1.0));
    let derivative = |x: R| {
        let tanh = argument(x).tanh();
        let slope = root::<R>() * (one + R::exact(3.0 * CUBE).rounded(crate::U) * x * x);
        half * (one + tanh) + half * x * (one - tanh * tanh) * slope
    };
    x.iter().zip(dy).map(|(&x, &dy)| derivative(x) * dy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    #[test]
    fn known_values() {
        // PyTorch: gelu(tensor([1., -1., 3.]), approximate="tanh") in f64.
        let y = forward(&[0.0, 1.0, -1.0, 3.0]);
        let expected = [0.0, 0.841_191_990_608_276_2, -0.158_808_009_391_723_8, 2.996_362_607_918_227];
        for (y, expected) in y.iter().zip(expected) {
            assert!((y - expected).abs() < 1e-15, "{y} {expected}");
        }
    }

    #[test]
    fn against_differences() {
        let x: Vec<f64> = normal(1, 40).iter().map(|x| 2.0 * x).collect();
        let dy = normal(2, 40);
        check("dx", &x, &backward(&x, &dy), |x| weigh(&dy, &forward(x)));
    }
}
