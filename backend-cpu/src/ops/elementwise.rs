//! `fill`, `copy`, `cast`, `scale`, `add`, and `reduce`, the arithmetic of collectives.

use std::cell::Cell;

use backend::ops::{Add, Cast, check_copy, check_float, check_reduce};
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

pub(crate) fn cast(threads: &Threads, args: Cast<'_, CpuBuffer>) -> Result<()> {
    let n = args.check()?;
    let (src, dst) = (Floats::new("cast", args.src)?, Floats::new("cast", args.dst)?);
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: the views are apart; each piece is its own task's.
        let (src, dst) = unsafe { (src.cells(piece.clone()), dst.cells(piece)) };
        dst.iter().zip(src).for_each(|(dst, src)| dst.set(src.get()));
    });
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

/// The deepest tree of [`reduce`]: more inputs than 2^32 - 1 there are not.
const DEPTH: usize = 32;

kernel! {
    /// The tree, as a stack of sums of 2^k inputs each, the larger below: what arrives is combined with the sums of its own size, and in the end the
    /// sums that are left with each other, the smallest first.
    fn reduce_all<'a, S>(simd, op: ReduceOp, inputs: &'a [&'a [Cell<f32>]], outputs: &'a [&'a [Cell<f32>]]) {
        let Some(first) = inputs.first() else { return };
        let combine = |left: Lanes<S>, right: Lanes<S>| match op {
            ReduceOp::Sum => left + right,
            ReduceOp::Max => left.max(right).unless_nan(right),
        };
        let mut stack = [Lanes::splat(simd, 0.0); DEPTH];
        lanes!(S, first.len(), |i, w| {
            let mut height = 0;
            for (before, input) in inputs.iter().enumerate() {
                let mut sum = Lanes::load(simd, input, i, w);
                for _ in 0..before.trailing_ones() {
                    height -= 1;
                    sum = combine(stack[height], sum);
                }
                stack[height] = sum;
                height += 1;
            }
            let mut total = stack[height - 1];
            for left in stack[..height - 1].iter().rev() {
                total = combine(*left, total);
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
