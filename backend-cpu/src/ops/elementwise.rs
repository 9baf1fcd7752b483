//! `fill`, `copy`, `cast`, `scale`, `add`, and `reduce`, the arithmetic of collectives.

use std::cell::Cell;

use backend::ops::{Add, Cast, check_copy, check_float, check_reduce};
use backend::{ReduceOp, Result, View};

use super::GRAIN;
use crate::CpuBuffer;
use crate::element::{Element, by_dtype};
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::{Floats, bytes};
use crate::threads::Threads;

pub(crate) fn fill<T: Element>(threads: &Threads, x: View<'_, CpuBuffer>, value: f32) -> Result<()> {
    let n = check_float("fill", x)?;
    let x = Floats::<T>::new("fill", x)?;
    let value = T::narrow(value);
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's.
        unsafe { x.cells(piece) }.iter().for_each(|x| x.set(value));
    });
    Ok(())
}

pub(crate) fn copy(threads: &Threads, src: View<'_, CpuBuffer>, dst: View<'_, CpuBuffer>) -> Result<()> {
    check_copy(src, dst)?;
    let (src, dst) = (bytes(src), bytes(dst));
    threads.pieces(src.len(), 4 * GRAIN, |piece| {
        // SAFETY: the views are apart and of one length; each piece is its own task's.
        unsafe {
            src.start().add(piece.start).copy_to_nonoverlapping(dst.start().add(piece.start), piece.len());
        }
    });
    Ok(())
}

kernel! {
    fn cast_all<'a, S, T, U>(simd, src: &'a [Cell<T>], dst: &'a [Cell<U>]) {
        lanes!(S, dst.len(), |i, w| { Lanes::load(simd, src, i, w).store(dst, i, w); });
    }
}

pub(crate) fn cast(threads: &Threads, args: Cast<'_, CpuBuffer>) -> Result<()> {
    args.check()?;
    by_dtype!(args.src.dtype(), T => by_dtype!(args.dst.dtype(), U => cast_from_to::<T, U>(threads, args)))
}

fn cast_from_to<T: Element, U: Element>(threads: &Threads, args: Cast<'_, CpuBuffer>) -> Result<()> {
    let (src, dst) = (Floats::<T>::new("cast", args.src)?, Floats::<U>::new("cast", args.dst)?);
    threads.pieces(src.len(), GRAIN, |piece| {
        // SAFETY: the views are apart; each piece is its own task's.
        let (src, dst) = unsafe { (src.cells(piece.clone()), dst.cells(piece)) };
        cast_all(src, dst);
    });
    Ok(())
}

kernel! {
    fn scale_all<'a, S, T>(simd, x: &'a [Cell<T>], alpha: f32) {
        let alpha = Lanes::splat(simd, alpha);
        lanes!(S, x.len(), |i, w| { (Lanes::load(simd, x, i, w) * alpha).store(x, i, w); });
    }
}

pub(crate) fn scale<T: Element>(threads: &Threads, x: View<'_, CpuBuffer>, alpha: f32) -> Result<()> {
    let n = check_float("scale", x)?;
    let x = Floats::<T>::new("scale", x)?;
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's.
        scale_all(unsafe { x.cells(piece) }, alpha);
    });
    Ok(())
}

kernel! {
    fn add_all<'a, S, T>(simd, x: &'a [Cell<T>], y: &'a [Cell<T>], alpha: f32) {
        let alpha = Lanes::splat(simd, alpha);
        lanes!(S, y.len(), |i, w| {
            Lanes::load(simd, x, i, w).mul_add(alpha, Lanes::load(simd, y, i, w)).store(y, i, w);
        });
    }
}

pub(crate) fn add<T: Element>(threads: &Threads, args: Add<'_, CpuBuffer>) -> Result<()> {
    let n = args.check()?;
    let (x, y) = (Floats::<T>::new("add", args.x)?, Floats::<T>::new("add", args.y)?);
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
    fn reduce_all<'a, S, T>(simd, op: ReduceOp, inputs: &'a [&'a [Cell<T>]], outputs: &'a [&'a [Cell<T>]]) {
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

pub(crate) fn reduce<'a, T: Element>(
    threads: &Threads,
    op: ReduceOp,
    inputs: &[View<'a, CpuBuffer>],
    outputs: &[View<'a, CpuBuffer>],
) -> Result<()> {
    let n = check_reduce(inputs, outputs)?;
    let inputs = inputs.iter().map(|view| Floats::<T>::new("reduce", *view)).collect::<Result<Vec<_>>>()?;
    let outputs = outputs.iter().map(|view| Floats::<T>::new("reduce", *view)).collect::<Result<Vec<_>>>()?;
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: each piece is its own task's, of every view: an output that overlaps an input is that input. The caller of a reduction keeps the other
        // ranks whose memory it is waiting.
        let cells = |view: &Floats<'a, T>| unsafe { view.cells(piece.clone()) };
        let inputs: Vec<_> = inputs.iter().map(cells).collect();
        let outputs: Vec<_> = outputs.iter().map(cells).collect();
        reduce_all(op, &inputs, &outputs);
    });
    Ok(())
}
