//! Sums: of everything, by pieces of a fixed length, f32 within a piece and f64 over the pieces; and of the squares of each block.

use std::cell::Cell;

use backend::Result;
use backend::ops::{BlockSquares, Sum};

use super::{GRAIN, row_grain};
use crate::CpuBuffer;
use crate::element::Element;
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
    fn piece_sum<'a, S, T>(simd, x: &'a [Cell<T>], squared: bool) -> f32 {
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

pub(crate) fn sum<T: Element>(threads: &Threads, args: Sum<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "sum";
    let n = args.check()?;
    let (x, out) = (Floats::<T>::new(OP, args.x)?, Floats::new(OP, args.out)?);
    let partial = Floats::workspace(OP, args.workspace, sum_workspace(n))?;
    threads.pieces(n, GRAIN, |piece| {
        let task = piece.start / GRAIN;
        // SAFETY: the operands are apart; each task has its element of the workspace.
        let (x, partial) = unsafe { (x.cells(piece), partial.cells(task..task + 1)) };
        partial[0].set(piece_sum(x, false));
    });
    // SAFETY: no task runs any more.
    let (partial, out) = unsafe { (partial.cells(0..sum_workspace(n)), out.cells(0..1)) };
    let sum = partial.iter().map(|x| f64::from(x.get())).sum::<f64>() as f32;
    let held = if args.beta == 0.0 { 0.0 } else { args.beta * out[0].get() };
    out[0].set(args.alpha * sum + held);
    Ok(())
}

pub(crate) fn block_squares(threads: &Threads, args: BlockSquares<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "block_squares";
    let blocks = args.check()?;
    let (n, block) = (args.x.len(), args.block);
    let (x, out) = (Floats::<f32>::new(OP, args.x)?, Floats::<f32>::new(OP, args.out)?);
    threads.pieces(blocks, row_grain(block), |piece| {
        // SAFETY: the operands are apart; each sum is its own task's.
        let sums = unsafe { out.cells(piece.clone()) };
        for (i, sum) in piece.zip(sums) {
            // SAFETY: nobody writes x.
            let x = unsafe { x.cells(i * block..n.min((i + 1).saturating_mul(block))) };
            sum.set(x.chunks(GRAIN).map(|x| f64::from(piece_sum(x, true))).sum::<f64>() as f32);
        }
    });
    Ok(())
}
