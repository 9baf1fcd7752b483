//! The tanh form of GELU, its gradient, and its fusion with the bias.
//!
//! `x/2 (1 + tanh u) = x / (1 + e^{-2u})` with `u = sqrt(2/pi) (x + 0.044715 x^3)`: one exponential, and no cancellation for negative `x`.

use std::cell::Cell;

use backend::Result;
use backend::ops::{BiasGelu, Gelu, GeluBackward};
use pulp::Simd;

use super::{GRAIN, row_grain};
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

/// `-2 sqrt(2/pi)`.
const C1: f32 = -1.595_769_2;
/// `-2 sqrt(2/pi) 0.044715`.
const C3: f32 = -0.071_354_814;

/// GELU of a vector.
#[inline(always)]
pub(crate) fn gelu_of<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let minus_2u = x * (x * x).mul_add(x.like(C3), x.like(C1));
    x / (minus_2u.exp() + x.like(1.0))
}

/// Derivative of GELU of a vector: with `s = 1 / (1 + e^{-2u})`, `s + x s (1 - s) 2u'`.
#[inline(always)]
fn slope_of<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    // Beyond 10 the slope is 0 or 1 to the last bit, and the exponential would leave the range.
    let x = x.clamp(-10.0, 10.0);
    let square = x * x;
    let e = (x * square.mul_add(x.like(C3), x.like(C1))).exp();
    let s = x.like(1.0) / (e + x.like(1.0));
    // -x 2u' s (1 - s), where 1 - s = e s; the product with e alone would leave the range.
    let inner = x * square.mul_add(x.like(3.0 * C3), x.like(C1)) * (e * s * s);
    s - inner
}

kernel! {
    fn gelu_all<'a, S, T>(simd, x: &'a [Cell<T>], y: &'a [Cell<T>]) {
        lanes!(S, y.len(), |i, w| { gelu_of(Lanes::load(simd, x, i, w)).store(y, i, w); });
    }
}

pub(crate) fn gelu<T: Element>(threads: &Threads, args: Gelu<'_, CpuBuffer>) -> Result<()> {
    let n = args.check()?;
    let (x, y) = (Floats::<T>::new("gelu", args.x)?, Floats::<T>::new("gelu", args.y)?);
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: x is y or apart from it; each piece is its own task's.
        let (x, y) = unsafe { (x.cells(piece.clone()), y.cells(piece)) };
        gelu_all(x, y);
    });
    Ok(())
}

kernel! {
    fn gelu_backward_all<'a, S, T>(simd, x: &'a [Cell<T>], dy: &'a [Cell<T>], dx: &'a [Cell<T>]) {
        lanes!(S, dx.len(), |i, w| {
            (slope_of(Lanes::load(simd, x, i, w)) * Lanes::load(simd, dy, i, w)).store(dx, i, w);
        });
    }
}

pub(crate) fn gelu_backward<T: Element>(threads: &Threads, args: GeluBackward<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "gelu_backward";
    let n = args.check()?;
    let (x, dy, dx) =
        (Floats::<T>::new(OP, args.x)?, Floats::<T>::new(OP, args.dy)?, Floats::<T>::new(OP, args.dx)?);
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: dx is x, dy or apart from them; each piece is its own task's.
        let (x, dy, dx) = unsafe { (x.cells(piece.clone()), dy.cells(piece.clone()), dx.cells(piece)) };
        gelu_backward_all(x, dy, dx);
    });
    Ok(())
}

kernel! {
    /// For each row of `x`: `x += bias`, `y = gelu(x)`.
    pub(crate) fn bias_gelu_rows<'a, S, T>(simd, x: &'a [Cell<T>], bias: &'a [Cell<T>], y: &'a [Cell<T>]) {
        let n = bias.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact(n)) {
            lanes!(S, n, |i, w| {
                // Of what is kept for the backward, as if it had been read back.
                let pre = (Lanes::load(simd, x, i, w) + Lanes::load(simd, bias, i, w)).rounded::<T>();
                pre.store(x, i, w);
                gelu_of(pre).store(y, i, w);
            });
        }
    }
}

pub(crate) fn bias_gelu<T: Element>(threads: &Threads, args: BiasGelu<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "bias_gelu";
    let [t, n] = args.check()?;
    let (x, bias, y) =
        (Floats::<T>::new(OP, args.x)?, Floats::<T>::new(OP, args.bias)?, Floats::<T>::new(OP, args.y)?);
    if n == 0 {
        return Ok(());
    }
    threads.pieces(t, row_grain(n), |rows| {
        let range = rows.start * n..rows.end * n;
        // SAFETY: the operands are apart; each row is its own task's.
        let (x, bias, y) = unsafe { (x.cells(range.clone()), bias.cells(0..n), y.cells(range)) };
        bias_gelu_rows(x, bias, y);
    });
    Ok(())
}
