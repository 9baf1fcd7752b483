//! `fill`, `copy`, `scale`, `add`, and `reduce`, the arithmetic of collectives.

use std::cell::Cell;

use backend::ops::{Add, check_copy, check_float, check_reduce};
use backend::{DType, ReduceOp, Result, View};

use super::GRAIN;
use crate::CpuBuffer;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

pub(crate) fn fill(threads: &Threads, x: View<'_, CpuBuffer>, value: f32) -> Result<()> {
    let n = check_float("fill", x)?;
    let x = Floats::new("fill", x)?;
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's.
        unsafe { x.cells(piece) }.iter().for_each(|x| x.set(value));
    });
    Ok(())
}

pub(crate) fn copy(threads: &Threads, src: View<'_, CpuBuffer>, dst: View<'_, CpuBuffer>) -> Result<()> {
    let n = check_copy(src, dst)?;
    if src.dtype() == DType::F32 {
        let (src, dst) = (Floats::new("copy", src)?, Floats::new("copy", dst)?);
        threads.pieces(n, GRAIN, |piece| {
            // SAFETY: the views are apart and in bounds; each piece is its own task's.
            unsafe {
                src.start()
                    .add(piece.start)
                    .copy_to_nonoverlapping(dst.start().add(piece.start), piece.len());
            }
        });
        return Ok(());
    }
    let start = |view: View<'_, CpuBuffer>| view.buffer().start().wrapping_add(view.byte_range().start);
    // SAFETY: the views are apart, in bounds and of one length.
    unsafe { start(src).copy_to_nonoverlapping(start(dst), src.bytes()) };
    Ok(())
}

kernel! {
    fn scale_all<'a, S>(simd, x: &'a [Cell<f32>], alpha: f32) {
        let alpha = Lanes::splat(simd, alpha);
        lanes!(S, x.len(), |i, w| { (Lanes::load(simd, x, i, w) * alpha).store(x, i, w); });
    }
}

pub(crate) fn scale(threads: &Threads, x: View<'_, CpuBuffer>, alpha: f32) -> Result<()> {
    let n = check_float("scale", x)?;
    let x = Floats::new("scale", x)?;
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's.
        scale_all(unsafe { x.cells(piece) }, alpha);
    });
    Ok(())
}

kernel! {
    fn add_all<'a, S>(simd, x: &'a [Cell<f32>], y: &'a [Cell<f32>], alpha: f32) {
        let alpha = Lanes::splat(simd, alpha);
        lanes!(S, y.len(), |i, w| {
            Lanes::load(simd, x, i, w).mul_add(alpha, Lanes::load(simd, y, i, w)).store(y, i, w);
        });
    }
}

pub(crate) fn add(threads: &Threads, args: Add<'_, CpuBuffer>) -> Result<()> {
    let n = args.check()?;
    let (x, y) = (Floats::new("add", args.x)?, Floats::new("add", args.y)?);
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: x and y are apart; each piece is its own task's.
        let (x, y) = unsafe { (x.cells(piece.clone()), y.cells(piece)) };
        add_all(x, y, args.alpha);
    });
    Ok(())
}

kernel! {
    fn reduce_all<'a, S>(simd, op: ReduceOp, inputs: &'a [&'a [Cell<f32>]], outputs: &'a [&'a [Cell<f32>]]) {
        let Some((first, rest)) = inputs.split_first() else { return };
        lanes!(S, first.len(), |i, w| {
            let mut total = Lanes::load(simd, first, i, w);
            for input in rest {
                let next = Lanes::load(simd, input, i, w);
                total = match op {
                    ReduceOp::Sum => total + next,
                    ReduceOp::Max => total.max(next).unless_nan(next),
                };
            }
            for output in outputs {
                total.store(output, i, w);
            }
        });
    }
}

pub(crate) fn reduce<'a>(
    threads: &Threads,
    op: ReduceOp,
    inputs: &[View<'a, CpuBuffer>],
    outputs: &[View<'a, CpuBuffer>],
) -> Result<()> {
    let n = check_reduce(inputs, outputs)?;
    let inputs = inputs.iter().map(|view| Floats::new("reduce", *view)).collect::<Result<Vec<_>>>()?;
    let outputs = outputs.iter().map(|view| Floats::new("reduce", *view)).collect::<Result<Vec<_>>>()?;
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's, of every view: an output that overlaps an input is that input. The caller of a reduction keeps the other
        // ranks whose memory it is waiting.
        let cells = |view: &Floats<'a>| unsafe { view.cells(piece.clone()) };
        let inputs: Vec<_> = inputs.iter().map(cells).collect();
        let outputs: Vec<_> = outputs.iter().map(cells).collect();
        reduce_all(op, &inputs, &outputs);
    });
    Ok(())
}
