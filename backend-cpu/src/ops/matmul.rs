//! Matrix products through the `gemm` crate, and their fusions with bias and GELU.
//!
//! The rows of `c` are shared among the threads, or its columns where it has few rows. A share is so wide that `gemm` cuts the inner
//! dimension as it does for the whole product, and an element's bits do not depend on the number of threads.

use std::ops::Range;

use backend::Result;
use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};

use super::bias::bias_rows;
use super::gelu::bias_gelu_rows;
use crate::CpuBuffer;
use crate::operand::Floats;
use crate::threads::Threads;

/// The rows, or columns, of a thread's share are at least about so many: `gemm` has other ways with products of up to 64 by 64, and with vectors.
const SHARE: usize = 128;

/// Multiply-adds below which a product is not worth sharing.
const WORTH_SHARING: usize = 1 << 18;

/// Where the columns of a transposed `a` lie a multiple of this far apart, they share a few lines of the cache while `gemm` packs them, ...
const FAR: usize = 1024;

/// ... and the inner dimension goes in pieces of this length, which packs less at a time: 7% faster for the gradient of the laptop's embedding.
const DEPTH: usize = 256;

/// `c = alpha a b + beta c`, strides by rows and columns.
#[derive(Clone, Copy)]
struct Product<'a> {
    dims: MatmulDims,
    a: Floats<'a>,
    b: Floats<'a>,
    c: Floats<'a>,
    a_strides: [usize; 2],
    b_strides: [usize; 2],
    alpha: f32,
    beta: f32,
}

impl<'a> Product<'a> {
    fn new(op: &'static str, args: &Matmul<'a, CpuBuffer>, dims: MatmulDims) -> Result<Self> {
        let MatmulDims { m, n, k, .. } = dims;
        Ok(Self {
            dims,
            a: Floats::new(op, args.a)?,
            b: Floats::new(op, args.b)?,
            c: Floats::new(op, args.c)?,
            a_strides: if args.trans_a { [1, m] } else { [k, 1] },
            b_strides: if args.trans_b { [1, k] } else { [n, 1] },
            alpha: args.alpha,
            beta: args.beta,
        })
    }

    /// Rows `rows` and columns `columns` of matrix `index` of the batch.
    ///
    /// # Safety
    /// They exist; no other thread touches them, and none writes `a` or `b`, meanwhile.
    unsafe fn part(&self, index: usize, rows: Range<usize>, columns: Range<usize>) {
        let MatmulDims { m, n, k, .. } = self.dims;
        let ([a_row, a_column], [b_row, b_column]) = (self.a_strides, self.b_strides);
        let depth = if a_column.is_multiple_of(FAR) { DEPTH } else { k.max(1) };
        // Once at the least: without an inner dimension c is still to be scaled.
        for first in (0..k.max(1)).step_by(depth) {
            let beta = if first == 0 { self.beta } else { 1.0 };
            // SAFETY: the arguments' check has matched the extents to the views, and c is apart from a and b.
            unsafe {
                gemm::gemm(
                    rows.len(),
                    columns.len(),
                    depth.min(k - first),
                    self.c.start().add(index * m * n + rows.start * n + columns.start),
                    1,
                    n as isize,
                    beta != 0.0,
                    self.a.start().add(index * m * k + rows.start * a_row + first * a_column).cast_const(),
                    a_column as isize,
                    a_row as isize,
                    self.b.start().add(index * k * n + columns.start * b_column + first * b_row).cast_const(),
                    b_column as isize,
                    b_row as isize,
                    beta,
                    self.alpha,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }
}

/// Cuts `n` rows or columns among the threads and calls `work` with each share: none is shorter than [`SHARE`] less 32, unless there is one alone.
fn shares(threads: &Threads, n: usize, work: impl Fn(Range<usize>) + Sync) {
    let count = threads.count().min(n / SHARE).max(1);
    let cut = |i: usize| if i == count { n } else { n * i / count / 32 * 32 };
    threads.run(count, |_, i| work(cut(i)..cut(i + 1)));
}

pub(crate) fn matmul(threads: &Threads, args: Matmul<'_, CpuBuffer>) -> Result<()> {
    let dims = args.check()?;
    let product = Product::new("matmul", &args, dims)?;
    let MatmulDims { batch, m, n, k } = dims;
    if batch > 1 || threads.count() == 1 || m * n * k < WORTH_SHARING {
        threads.run(batch, |_, index| {
            // SAFETY: each matrix is its own task's.
            unsafe { product.part(index, 0..m, 0..n) }
        });
    } else if m >= n || m >= 2 * SHARE {
        // SAFETY: each row is its own task's.
        shares(threads, m, |rows| unsafe { product.part(0, rows, 0..n) });
    } else {
        // SAFETY: each column is its own task's.
        shares(threads, n, |columns| unsafe { product.part(0, 0..m, columns) });
    }
    Ok(())
}

/// The linear layers: each thread's share of the rows, then `finish` on it while it is in the cache.
fn linear(
    threads: &Threads,
    op: &'static str,
    args: &Matmul<'_, CpuBuffer>,
    dims: MatmulDims,
    finish: impl Fn(Range<usize>) + Sync,
) -> Result<()> {
    let product = Product::new(op, args, dims)?;
    let MatmulDims { m, n, k, .. } = dims;
    let part = |rows: Range<usize>| {
        // SAFETY: each row is its own task's.
        unsafe { product.part(0, rows.clone(), 0..n) };
        finish(rows);
    };
    match m * n * k >= WORTH_SHARING {
        true => shares(threads, m, part),
        false => part(0..m),
    }
    Ok(())
}

pub(crate) fn matmul_bias(threads: &Threads, args: MatmulBias<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "matmul_bias";
    let dims = args.check()?;
    let (bias, y) = (Floats::new(OP, args.bias)?, Floats::new(OP, args.y)?);
    if dims.n == 0 {
        return Ok(());
    }
    linear(threads, OP, &args.product(), dims, |rows| {
        // SAFETY: the operands are apart; each row is its own task's.
        let (y, bias) = unsafe { (y.cells(rows.start * dims.n..rows.end * dims.n), bias.cells(0..dims.n)) };
        bias_rows(y, bias);
    })
}

pub(crate) fn matmul_bias_gelu(threads: &Threads, args: MatmulBiasGelu<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "matmul_bias_gelu";
    let dims = args.check()?;
    let bias = Floats::new(OP, args.bias)?;
    let (pre, y) = (Floats::new(OP, args.pre)?, Floats::new(OP, args.y)?);
    if dims.n == 0 {
        return Ok(());
    }
    linear(threads, OP, &args.product(), dims, |rows| {
        let range = rows.start * dims.n..rows.end * dims.n;
        // SAFETY: the operands are apart; each row is its own task's.
        let (pre, bias, y) = unsafe { (pre.cells(range.clone()), bias.cells(0..dims.n), y.cells(range)) };
        bias_gelu_rows(pre, bias, y);
    })
}
