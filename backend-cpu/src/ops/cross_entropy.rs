//! Vocabulary-parallel cross-entropy in its local pieces.

use std::cell::Cell;

use backend::Result;
use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};

use super::{GRAIN, row_grain};
use crate::CpuBuffer;
use crate::element::{Element, by_dtype};
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::{Floats, tokens};
use crate::threads::Threads;

/// The target's column among `first_column .. first_column + v`, if it is one of them.
fn column_of(target: u32, first_column: usize, v: usize) -> Option<usize> {
    (target as usize).checked_sub(first_column).filter(|column| *column < v)
}

kernel! {
    fn row_max<'a, S, T>(simd, x: &'a [Cell<T>]) -> f32 {
        let mut max = Lanes::splat(simd, f32::NEG_INFINITY);
        // A NaN is not larger than anything: it is kept apart.
        let mut not_nan = max;
        lanes!(S, x.len(), |i, w| {
            let x = Lanes::load_or(simd, x, i, w, f32::NEG_INFINITY);
            max = max.max(x);
            not_nan = not_nan.unless_nan(x);
        });
        max.unless_nan(not_nan).largest()
    }
}

pub(crate) fn max<T: Element>(threads: &Threads, args: CrossEntropyMax<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "cross_entropy_max";
    let [t, v] = args.check()?;
    let (logits, max) = (Floats::<T>::new(OP, args.logits)?, Floats::new(OP, args.max)?);
    threads.pieces(t, row_grain(v), |rows| {
        // SAFETY: the operands are apart; each row is its own task's.
        let maxima = unsafe { max.cells(rows.clone()) };
        for (t, max) in rows.zip(maxima) {
            // SAFETY: nobody writes the logits.
            max.set(row_max(unsafe { logits.cells(t * v..(t + 1) * v) }));
        }
    });
    Ok(())
}

kernel! {
    fn row_sum_exp<'a, S, T>(simd, x: &'a [Cell<T>], max: f32) -> f32 {
        let max = Lanes::splat(simd, max);
        let mut sum = Lanes::splat(simd, 0.0);
        lanes!(S, x.len(), |i, w| {
            sum = sum + (Lanes::load_or(simd, x, i, w, f32::NEG_INFINITY) - max).exp();
        });
        sum.sum()
    }
}

pub(crate) fn sums<T: Element>(threads: &Threads, args: CrossEntropySums<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "cross_entropy_sums";
    let [t, v] = args.check()?;
    let (logits, max) = (Floats::<T>::new(OP, args.logits)?, Floats::new(OP, args.max)?);
    let (sum_exp, target) = (Floats::new(OP, args.sum_exp)?, Floats::new(OP, args.target)?);
    let targets = tokens(args.targets);
    threads.pieces(t, row_grain(v), |rows| {
        for t in rows {
            // SAFETY: the operands are apart; each row is its own task's.
            let (logits, max, sum_exp, target) = unsafe {
                (
                    logits.cells(t * v..(t + 1) * v),
                    max.cells(t..t + 1)[0].get(),
                    &sum_exp.cells(t..t + 1)[0],
                    &target.cells(t..t + 1)[0],
                )
            };
            sum_exp.set(row_sum_exp(logits, max));
            let column = column_of(targets[t], args.first_column, v);
            target.set(column.map_or(0.0, |column| logits[column].get().widen() - max));
        }
    });
    Ok(())
}

pub(crate) fn loss(threads: &Threads, args: CrossEntropyLoss<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "cross_entropy_loss";
    let t = args.check()?;
    let (sum_exp, target) = (Floats::<f32>::new(OP, args.sum_exp)?, Floats::<f32>::new(OP, args.target)?);
    let loss = Floats::new(OP, args.loss)?;
    threads.pieces(t, GRAIN, |rows| {
        // SAFETY: the operands are apart; each row is its own task's.
        let (sum_exp, target, loss) =
            unsafe { (sum_exp.cells(rows.clone()), target.cells(rows.clone()), loss.cells(rows)) };
        for ((sum_exp, target), loss) in sum_exp.iter().zip(target).zip(loss) {
            loss.set(sum_exp.get().ln() - target.get());
        }
    });
    Ok(())
}

kernel! {
    /// `dx = factor exp(x - max)`, less `scale` in the target's column.
    fn row_gradient<'a, S, T, U>(
        simd,
        x: &'a [Cell<T>],
        max: f32,
        factor: f32,
        target: Option<usize>,
        scale: f32,
        dx: &'a [Cell<U>],
    ) {
        let (max, factor) = (Lanes::splat(simd, max), Lanes::splat(simd, factor));
        // Before dx, which may be x, is written.
        let hit = target.map(|column| (column, Lanes::splat(simd, x[column].get().widen())));
        lanes!(S, dx.len(), |i, w| {
            ((Lanes::load(simd, x, i, w) - max).exp() * factor).store(dx, i, w);
        });
        if let Some((column, x)) = hit {
            ((x - max).exp() * factor - x.like(scale)).store(dx, column, 1);
        }
    }
}

pub(crate) fn backward(threads: &Threads, args: CrossEntropyBackward<'_, CpuBuffer>) -> Result<()> {
    args.check()?;
    by_dtype!(args.logits.dtype(), T => by_dtype!(args.dlogits.dtype(), U => backward_of::<T, U>(threads, args)))
}

fn backward_of<T: Element, U: Element>(
    threads: &Threads,
    args: CrossEntropyBackward<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "cross_entropy_backward";
    let [t, v] = args.check()?;
    let (logits, dlogits) = (Floats::<T>::new(OP, args.logits)?, Floats::<U>::new(OP, args.dlogits)?);
    let (max, sum_exp) = (Floats::new(OP, args.max)?, Floats::<f32>::new(OP, args.sum_exp)?);
    let targets = tokens(args.targets);
    threads.pieces(t, row_grain(v), |rows| {
        for t in rows {
            let range = t * v..(t + 1) * v;
            // SAFETY: dlogits is logits or apart from them, and everything else is apart; each row is its own task's.
            let (logits, dlogits, max, sum_exp) = unsafe {
                (
                    logits.cells(range.clone()),
                    dlogits.cells(range),
                    max.cells(t..t + 1)[0].get(),
                    sum_exp.cells(t..t + 1)[0].get(),
                )
            };
            let target = column_of(targets[t], args.first_column, v);
            row_gradient(logits, max, args.scale / sum_exp, target, args.scale, dlogits);
        }
    });
    Ok(())
}
