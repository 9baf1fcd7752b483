//! Sums of everything, by pieces of a fixed length: f32 within a piece, f64 over the pieces.

use std::cell::Cell;

use backend::ops::{Sum, SumSquares};
use backend::{Result, View};

use super::GRAIN;
use crate::CpuBuffer;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

/// A sum a piece.
pub(crate) fn sum_workspace(n: usize) -> usize {
    n.div_ceil(GRAIN)
}

/// Vectors whose sums go side by side.
const SIDE: usize = 4;

kernel! {
    fn piece_sum<'a, S>(simd, x: &'a [Cell<f32>], squared: bool) -> f32 {
        let mut sums = [Lanes::splat(simd, 0.0); SIDE];
        let mut first = 0;
        while first + SIDE * S::F32_LANES <= x.len() {
            for (k, sum) in sums.iter_mut().enumerate() {
                let x = Lanes::load(simd, x, first + k * S::F32_LANES, S::F32_LANES);
                *sum = if squared { x.mul_add(x, *sum) } else { *sum + x };
            }
            first += SIDE * S::F32_LANES;
        }
        lanes!(S, x.len() - first, |i, w| {
            let x = Lanes::load(simd, x, first + i, w);
            sums[0] = if squared { x.mul_add(x, sums[0]) } else { sums[0] + x };
        });
        ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum()
    }
}

/// `out = alpha sum + beta out`.
fn total(
    threads: &Threads,
    op: &'static str,
    [x, out, workspace]: [View<'_, CpuBuffer>; 3],
    squared: bool,
    [alpha, beta]: [f32; 2],
) -> Result<()> {
    let n = x.len();
    let (x, out) = (Floats::new(op, x)?, Floats::new(op, out)?);
    let partial = Floats::workspace(op, workspace, sum_workspace(n))?;
    threads.pieces(n, GRAIN, |piece| {
        let task = piece.start / GRAIN;
        // SAFETY: the operands are apart; each task has its element of the workspace.
        let (x, partial) = unsafe { (x.cells(piece), partial.cells(task..task + 1)) };
        partial[0].set(piece_sum(x, squared));
    });
    // SAFETY: no task runs any more.
    let (partial, out) = unsafe { (partial.cells(0..sum_workspace(n)), out.cells(0..1)) };
    let sum = partial.iter().map(|x| f64::from(x.get())).sum::<f64>() as f32;
    let held = if beta == 0.0 { 0.0 } else { beta * out[0].get() };
    out[0].set(alpha * sum + held);
    Ok(())
}

pub(crate) fn sum(threads: &Threads, args: Sum<'_, CpuBuffer>) -> Result<()> {
    args.check()?;
    total(threads, "sum", [args.x, args.out, args.workspace], false, [args.alpha, args.beta])
}

pub(crate) fn sum_squares(threads: &Threads, args: SumSquares<'_, CpuBuffer>) -> Result<()> {
    args.check()?;
    total(threads, "sum_squares", [args.x, args.out, args.workspace], true, [1.0, args.beta])
}
