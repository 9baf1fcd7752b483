//! The end of a residual branch: bias, dropout and residual in one pass.

use std::cell::Cell;

use backend::Result;
use backend::ops::BiasDropoutResidual;

use super::dropout::{FACTORS, Mask, factors};
use super::row_grain;
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

kernel! {
    fn rows<'a, S, T>(
        simd,
        x: &'a [Cell<T>],
        bias: &'a [Cell<T>],
        residual: &'a [Cell<T>],
        y: &'a [Cell<T>],
    ) {
        let h = bias.len();
        for ((x, residual), y) in x.chunks_exact(h).zip(residual.chunks_exact(h)).zip(y.chunks_exact(h)) {
            lanes!(S, h, |i, w| {
                let branch = Lanes::load(simd, x, i, w) + Lanes::load(simd, bias, i, w);
                (Lanes::load(simd, residual, i, w) + branch).store(y, i, w);
            });
        }
    }
}

kernel! {
    fn rows_dropped<'a, S, T>(
        simd,
        x: &'a [Cell<T>],
        bias: &'a [Cell<T>],
        residual: &'a [Cell<T>],
        y: &'a [Cell<T>],
        mask: Mask,
        first: u64,
    ) {
        let h = bias.len();
        let mut buffer = [0.0; FACTORS];
        let buffer = Cell::from_mut(&mut buffer[..]).as_slice_of_cells();
        for row in 0..x.len() / h {
            for column in (0..h).step_by(FACTORS) {
                let (at, n) = (row * h + column, FACTORS.min(h - column));
                factors(mask, first + at as u64, &buffer[..n]);
                lanes!(S, n, |i, w| {
                    let branch = Lanes::load(simd, x, at + i, w) + Lanes::load(simd, bias, column + i, w);
                    let kept = branch * Lanes::load(simd, buffer, i, w);
                    (Lanes::load(simd, residual, at + i, w) + kept).store(y, at + i, w);
                });
            }
        }
    }
}

pub(crate) fn bias_dropout_residual<T: Element>(
    threads: &Threads,
    args: BiasDropoutResidual<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "bias_dropout_residual";
    let [t, h] = args.check()?;
    let (x, bias) = (Floats::<T>::new(OP, args.x)?, Floats::<T>::new(OP, args.bias)?);
    let (residual, y) = (Floats::<T>::new(OP, args.residual)?, Floats::<T>::new(OP, args.y)?);
    if h == 0 {
        return Ok(());
    }
    threads.pieces(t, row_grain(h), |piece| {
        let range = piece.start * h..piece.end * h;
        // SAFETY: y is the residual or apart from it, and everything else is apart; each row is its own task's.
        let (x, bias, residual, y) = unsafe {
            (x.cells(range.clone()), bias.cells(0..h), residual.cells(range.clone()), y.cells(range.clone()))
        };
        match &args.mask {
            None => rows(x, bias, residual, y),
            Some(mask) => {
                rows_dropped(x, bias, residual, y, Mask::new(mask), mask.first + range.start as u64);
            }
        }
    });
    Ok(())
}
