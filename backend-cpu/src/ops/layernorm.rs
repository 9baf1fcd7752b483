//! Layer normalisation and its gradient, a row at a time.

use std::cell::Cell;

use backend::Result;
use backend::ops::{LayerNorm, LayerNormBackward};

use super::bias::sum_rows;
use super::row_grain;
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

kernel! {
    fn forward_rows<'a, S, T>(
        simd,
        x: &'a [Cell<T>],
        gamma: &'a [Cell<T>],
        beta: &'a [Cell<T>],
        eps: f32,
        y: &'a [Cell<T>],
        mean: &'a [Cell<f32>],
        rstd: &'a [Cell<f32>],
    ) {
        let h = gamma.len();
        for ((x, y), (mean, rstd)) in x.chunks_exact(h).zip(y.chunks_exact(h)).zip(mean.iter().zip(rstd)) {
            let mut sum = Lanes::splat(simd, 0.0);
            lanes!(S, h, |i, w| { sum = sum + Lanes::load(simd, x, i, w); });
            let m = sum.sum() / h as f32;
            let m_lanes = Lanes::splat(simd, m);
            let mut squares = Lanes::splat(simd, 0.0);
            lanes!(S, h, |i, w| {
                let centred = Lanes::load_or(simd, x, i, w, m) - m_lanes;
                squares = centred.mul_add(centred, squares);
            });
            let r = 1.0 / (squares.sum() / h as f32 + eps).sqrt();
            let r_lanes = Lanes::splat(simd, r);
            lanes!(S, h, |i, w| {
                let normal = (Lanes::load(simd, x, i, w) - m_lanes) * r_lanes;
                normal.mul_add(Lanes::load(simd, gamma, i, w), Lanes::load(simd, beta, i, w)).store(y, i, w);
            });
            mean.set(m);
            rstd.set(r);
        }
    }
}

pub(crate) fn layernorm<T: Element>(threads: &Threads, args: LayerNorm<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "layernorm";
    let [t, h] = args.check()?;
    let (x, y) = (Floats::<T>::new(OP, args.x)?, Floats::<T>::new(OP, args.y)?);
    let (gamma, beta) = (Floats::<T>::new(OP, args.gamma)?, Floats::<T>::new(OP, args.beta)?);
    let (mean, rstd) = (Floats::new(OP, args.mean)?, Floats::new(OP, args.rstd)?);
    threads.pieces(t, row_grain(h), |rows| {
        let range = rows.start * h..rows.end * h;
        // SAFETY: x is y or apart from it, and everything else is apart; each row is its own task's.
        unsafe {
            forward_rows(
                x.cells(range.clone()),
                gamma.cells(0..h),
                beta.cells(0..h),
                args.eps,
                y.cells(range),
                mean.cells(rows.clone()),
                rstd.cells(rows),
            );
        }
    });
    Ok(())
}

/// Rows whose share of dgamma and dbeta is summed before the shares are.
const ROWS: usize = 64;

/// Shares of dgamma and dbeta, `[ceil(t / ROWS), 2, h]`.
pub(crate) fn layernorm_backward_workspace(t: usize, h: usize) -> usize {
    t.div_ceil(ROWS) * 2 * h
}

/// The rows of one task.
struct Rows<'a, T> {
    x: &'a [Cell<T>],
    gamma: &'a [Cell<T>],
    mean: &'a [Cell<f32>],
    rstd: &'a [Cell<f32>],
    dy: &'a [Cell<T>],
    dx: &'a [Cell<T>],
    accumulate: bool,
    /// Its shares of dgamma and dbeta, overwritten.
    shares: &'a [Cell<f32>],
}

kernel! {
    fn backward_rows<'a, S, T>(simd, rows: Rows<'a, T>) {
        let Rows { x, gamma, mean, rstd, dy, dx, accumulate, shares } = rows;
        let h = gamma.len();
        shares.iter().for_each(|share| share.set(0.0));
        let (dgamma, dbeta) = shares.split_at(h);
        for (t, (mean, rstd)) in mean.iter().zip(rstd).enumerate() {
            let row = t * h..(t + 1) * h;
            let (x, dy, dx) = (&x[row.clone()], &dy[row.clone()], &dx[row]);
            let (mean, r) = (Lanes::splat(simd, mean.get()), Lanes::splat(simd, rstd.get()));
            let (mut sum_g, mut sum_gn) = (mean.like(0.0), mean.like(0.0));
            lanes!(S, h, |i, w| {
                let normal = (Lanes::load(simd, x, i, w) - mean) * r;
                let dy = Lanes::load(simd, dy, i, w);
                let g = dy * Lanes::load(simd, gamma, i, w);
                sum_g = sum_g + g;
                sum_gn = g.mul_add(normal, sum_gn);
                dy.mul_add(normal, Lanes::load(simd, dgamma, i, w)).store(dgamma, i, w);
                (dy + Lanes::load(simd, dbeta, i, w)).store(dbeta, i, w);
            });
            let mean_g = mean.like(sum_g.sum() / h as f32);
            let minus_mean_gn = mean.like(-sum_gn.sum() / h as f32);
            lanes!(S, h, |i, w| {
                let normal = (Lanes::load(simd, x, i, w) - mean) * r;
                let g = Lanes::load(simd, dy, i, w) * Lanes::load(simd, gamma, i, w);
                let gradient = normal.mul_add(minus_mean_gn, g - mean_g);
                match accumulate {
                    true => gradient.mul_add(r, Lanes::load(simd, dx, i, w)).store(dx, i, w),
                    false => (gradient * r).store(dx, i, w),
                }
            });
        }
    }
}

pub(crate) fn layernorm_backward<T: Element>(
    threads: &Threads,
    args: LayerNormBackward<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "layernorm_backward";
    let [t, h] = args.check()?;
    let (x, gamma) = (Floats::<T>::new(OP, args.x)?, Floats::<T>::new(OP, args.gamma)?);
    let (mean, rstd) = (Floats::new(OP, args.mean)?, Floats::new(OP, args.rstd)?);
    let (dy, dx) = (Floats::<T>::new(OP, args.dy)?, Floats::<T>::new(OP, args.dx)?);
    let (dgamma, dbeta) = (Floats::new(OP, args.dgamma)?, Floats::new(OP, args.dbeta)?);
    let shares = Floats::workspace(OP, args.workspace, layernorm_backward_workspace(t, h))?;
    let tasks = t.div_ceil(ROWS);
    threads.run(tasks, |_, task| {
        let rows = task * ROWS..t.min((task + 1) * ROWS);
        let range = rows.start * h..rows.end * h;
        // SAFETY: dx is dy or apart from it, and everything else is apart; each row, and each pair of shares, is its own task's.
        let rows = unsafe {
            Rows {
                x: x.cells(range.clone()),
                gamma: gamma.cells(0..h),
                mean: mean.cells(rows.clone()),
                rstd: rstd.cells(rows),
                dy: dy.cells(range.clone()),
                dx: dx.cells(range),
                accumulate: args.accumulate,
                shares: shares.cells(task * 2 * h..(task + 1) * 2 * h),
            }
        };
        backward_rows(rows);
    });
    // SAFETY: no task runs any more.
    let (shares, dgamma, dbeta) =
        unsafe { (shares.cells(0..tasks * 2 * h), dgamma.cells(0..h), dbeta.cells(0..h)) };
    for share in shares.chunks_exact(2 * h) {
        sum_rows(&share[..h], dgamma, true);
        sum_rows(&share[h..], dbeta, true);
    }
    Ok(())
}
