//! Bias: its addition to rows, and its gradient.

use std::cell::Cell;

use backend::Result;
use backend::ops::{BiasAdd, BiasBackward};

use super::row_grain;
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

kernel! {
    /// For each row of `x`: `x += bias`.
    pub(crate) fn bias_rows<'a, S, T>(simd, x: &'a [Cell<T>], bias: &'a [Cell<T>]) {
        for x in x.chunks_exact(bias.len()) {
            lanes!(S, bias.len(), |i, w| {
                (Lanes::load(simd, x, i, w) + Lanes::load(simd, bias, i, w)).store(x, i, w);
            });
        }
    }
}

pub(crate) fn bias_add<T: Element>(threads: &Threads, args: BiasAdd<'_, CpuBuffer>) -> Result<()> {
    let [t, n] = args.check()?;
    let (x, bias) = (Floats::<T>::new("bias_add", args.x)?, Floats::<T>::new("bias_add", args.bias)?);
    if n == 0 {
        return Ok(());
    }
    threads.pieces(t, row_grain(n), |rows| {
        // SAFETY: the operands are apart; each row is its own task's.
        let (x, bias) = unsafe { (x.cells(rows.start * n..rows.end * n), bias.cells(0..n)) };
        bias_rows(x, bias);
    });
    Ok(())
}

/// Rows that are summed before the sums are: bounds the error, and is what threads share.
const ROWS: usize = 64;

/// Partial sums of [`bias_backward`].
pub(crate) fn bias_backward_workspace(t: usize, n: usize) -> usize {
    t.div_ceil(ROWS) * n
}

kernel! {
    /// `sums = sum over rows of x`, or added to what it holds.
    pub(crate) fn sum_rows<'a, S, T>(simd, x: &'a [Cell<T>], sums: &'a [Cell<f32>], accumulate: bool) {
        let n = sums.len();
        // Columns go four vectors at a time, their sums in registers.
        let wide = 4 * S::F32_LANES;
        let mut first = 0;
        while first + wide <= n {
            let at = |k: usize| first + k * S::F32_LANES;
            let mut total = [Lanes::splat(simd, 0.0); 4];
            for row in x.chunks_exact(n) {
                for (k, total) in total.iter_mut().enumerate() {
                    *total = *total + Lanes::load(simd, row, at(k), S::F32_LANES);
                }
            }
            for (k, total) in total.into_iter().enumerate() {
                let held = if accumulate { Lanes::load(simd, sums, at(k), S::F32_LANES) } else { total.like(0.0) };
                (held + total).store(sums, at(k), S::F32_LANES);
            }
            first += wide;
        }
        lanes!(S, n - first, |i, w| {
            let mut total = Lanes::splat(simd, 0.0);
            for row in x.chunks_exact(n) {
                total = total + Lanes::load(simd, row, first + i, w);
            }
            let held = if accumulate { Lanes::load(simd, sums, first + i, w) } else { total.like(0.0) };
            (held + total).store(sums, first + i, w);
        });
    }
}

pub(crate) fn bias_backward<T: Element>(threads: &Threads, args: BiasBackward<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "bias_backward";
    let [t, n] = args.check()?;
    let (dy, dbias) = (Floats::<T>::new(OP, args.dy)?, Floats::new(OP, args.dbias)?);
    let partial = Floats::workspace(OP, args.workspace, bias_backward_workspace(t, n))?;
    if n == 0 {
        return Ok(());
    }
    threads.run(t.div_ceil(ROWS), |_, task| {
        let rows = task * ROWS..t.min((task + 1) * ROWS);
        // SAFETY: the operands are apart; each task has a row of the workspace.
        let (dy, sums) =
            unsafe { (dy.cells(rows.start * n..rows.end * n), partial.cells(task * n..(task + 1) * n)) };
        sum_rows(dy, sums, false);
    });
    // SAFETY: no task runs any more.
    let (partial, dbias) = unsafe { (partial.cells(0..bias_backward_workspace(t, n)), dbias.cells(0..n)) };
    sum_rows(partial, dbias, true);
    Ok(())
}
