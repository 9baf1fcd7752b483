//! Matrix products, and their fusions with bias and GELU.
//!
//! The rows of `c` are shared among the threads, or its columns where it has few rows. Factors of 16 bits are widened a panel at a time, and a result of 16
//! bits is summed in f32, a tile at a time, and rounded when it is whole: the bits are those of the product of the widened factors.

use std::cell::Cell;
use std::ops::Range;

use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{DType, Result};

use super::bias::bias_rows;
use super::gelu::{bias_gelu_rows, gelu_of};
use crate::CpuBuffer;
use crate::chains::FEW;
use crate::element::{Element, by_dtype};
use crate::gemm::{self, Strided};
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::panels::{self, Panel, Panels, Source, TILE};
use crate::threads::Threads;

/// The rows, or columns, of a thread's share are at least about so many.
const SHARE: usize = 128;

/// Microseconds, about, from which on a product is worth sharing.
const WORTH_SHARING: usize = 10;

/// Whether it is: by its multiply-adds, or by the factors' elements where these are few to each.
fn worth_sharing(MatmulDims { m, n, k, .. }: MatmulDims) -> bool {
    const MULTIPLY_ADDS: usize = 1 << 15;
    const ELEMENTS: usize = 1 << 12;
    m * n * k >= WORTH_SHARING * MULTIPLY_ADDS || m * k + k * n >= WORTH_SHARING * ELEMENTS
}

/// `c = alpha a b + beta c`, strides by rows and columns.
#[derive(Clone, Copy)]
struct Product<'a, T, U> {
    dims: MatmulDims,
    a: Floats<'a, T>,
    b: Floats<'a, T>,
    c: Floats<'a, U>,
    a_strides: [usize; 2],
    b_strides: [usize; 2],
    factors: [f32; 2],
}

impl<'a, T: Element, U: Element> Product<'a, T, U> {
    fn new(op: &'static str, args: &Matmul<'a, CpuBuffer>, dims: MatmulDims) -> Result<Self> {
        let MatmulDims { m, n, k, .. } = dims;
        Ok(Self {
            dims,
            a: Floats::new(op, args.a)?,
            b: Floats::new(op, args.b)?,
            c: Floats::new(op, args.c)?,
            a_strides: if args.trans_a { [1, m] } else { [k, 1] },
            b_strides: if args.trans_b { [1, k] } else { [n, 1] },
            factors: [args.alpha, args.beta],
        })
    }

    /// Whether factors and result are f32: then no panels are needed.
    const PLAIN: bool = matches!(T::DTYPE, DType::F32);

    /// Rows `rows` and columns `columns` of matrix `index` of the batch. `finish` gets each tile of a result of 16 bits: its rows and columns, and their
    /// sums in f32, [`TILE`] apart; a result of f32 is written in place.
    ///
    /// # Safety
    /// They exist; no other thread touches them, and none writes `a` or `b`, meanwhile.
    unsafe fn part(
        &self,
        panel: Option<Panel<'_>>,
        index: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        finish: impl Fn(Range<usize>, Range<usize>, &[Cell<f32>]),
    ) {
        let MatmulDims { m, n, k, .. } = self.dims;
        let (a_range, b_range) = (index * m * k..(index + 1) * m * k, index * k * n..(index + 1) * k * n);
        let c_start = self.c.start().wrapping_add(index * m * n).cast::<f32>();
        let c = Strided { start: c_start, rows: n, columns: 1 };
        let Some(panel) = panel else {
            let strided = |x: &Floats<'a, T>, range: &Range<usize>, [rows, columns]: [usize; 2]| Strided {
                start: x.start().wrapping_add(range.start).cast(),
                rows,
                columns,
            };
            // SAFETY: the arguments' check has matched the extents to the views, all of f32, and c is apart from a and b.
            unsafe {
                let a = strided(&self.a, &a_range, self.a_strides).from(rows.start, 0);
                let b = strided(&self.b, &b_range, self.b_strides).from(0, columns.start);
                let c = c.from(rows.start, columns.start);
                gemm::product([rows.len(), columns.len(), k], a, b, c, self.factors);
            }
            return;
        };
        let source = |cells, [rows, columns]: [usize; 2]| Source { cells, rows, columns };
        // SAFETY: nobody writes the factors.
        let (a, b) = unsafe { (self.a.cells(a_range), self.b.cells(b_range)) };
        let (a, b) = (source(a, self.a_strides), source(b, self.b_strides));
        for (row, column) in
            rows.clone().step_by(TILE).flat_map(|row| columns.clone().step_by(TILE).map(move |c| (row, c)))
        {
            let (rows, columns) = (row..rows.end.min(row + TILE), column..columns.end.min(column + TILE));
            let extents = [rows.len(), columns.len(), k];
            if U::DTYPE == DType::F32 {
                // SAFETY: the caller's rows and columns of c, which is f32 and apart from a and b.
                unsafe {
                    panels::product(&panel, [row, column], extents, a, b, c.from(row, column), self.factors)
                };
                continue;
            }
            if self.factors[1] != 0.0 {
                for i in rows.clone() {
                    let first = (index * m + i) * n;
                    // SAFETY: the caller's rows and columns of c.
                    let held = unsafe { self.c.cells(first + columns.start..first + columns.end) };
                    for (to, from) in panel.tile[(i - row) * TILE..].iter().zip(held) {
                        to.set(from.get().widen());
                    }
                }
            }
            let tile = panel.tile.as_ptr().cast::<f32>().cast_mut();
            let tile = Strided { start: tile, rows: TILE, columns: 1 };
            // SAFETY: the tile is this thread's.
            unsafe { panels::product(&panel, [row, column], extents, a, b, tile, self.factors) };
            finish(rows, columns, panel.tile);
        }
    }
}

/// Shares a thread where there are few rows, whose factors are not packed: so that a thread that is held up does not hold up the others.
const TURNS: usize = 4;

/// Cuts rows, or columns where there are few rows, among the threads and calls `work` with the thread and each share: none is shorter than [`SHARE`] less
/// 32, unless there is one alone.
fn shares(threads: &Threads, [m, n]: [usize; 2], work: impl Fn(usize, Range<usize>, Range<usize>) + Sync) {
    let by_rows = m >= n || m >= 2 * SHARE;
    let extent = if by_rows { m } else { n };
    let turns = if m.min(n) <= FEW { TURNS } else { 1 };
    let count = (turns * threads.count()).min(extent / SHARE).max(1);
    let cut = |i: usize| if i == count { extent } else { extent * i / count / 32 * 32 };
    threads.run(count, |thread, i| {
        let share = cut(i)..cut(i + 1);
        let (rows, columns) = if by_rows { (share, 0..n) } else { (0..m, share) };
        work(thread, rows, columns);
    });
}

kernel! {
    /// Rows of a tile, rounded.
    fn round_row<'a, S, U>(simd, sums: &'a [Cell<f32>], c: &'a [Cell<U>]) {
        lanes!(S, c.len(), |i, w| { Lanes::load(simd, sums, i, w).store(c, i, w); });
    }
}

pub(crate) fn matmul(threads: &Threads, panels: &Panels, args: Matmul<'_, CpuBuffer>) -> Result<()> {
    args.check()?;
    by_dtype!(args.a.dtype(), T => match args.c.dtype() == DType::F32 {
        true => matmul_of::<T, f32>(threads, panels, args),
        false => matmul_of::<T, T>(threads, panels, args),
    })
}

fn matmul_of<T: Element, U: Element>(
    threads: &Threads,
    panels: &Panels,
    args: Matmul<'_, CpuBuffer>,
) -> Result<()> {
    let dims = args.check()?;
    let product = Product::<T, U>::new("matmul", &args, dims)?;
    let memory = if Product::<T, U>::PLAIN { None } else { Some(panels.memory()?) };
    let memory = memory.as_ref().map(|memory| Floats::new("matmul", memory.view())).transpose()?;
    let MatmulDims { batch, m, n, .. } = dims;
    // SAFETY: each thread has its panels, and each call its part of a matrix of its own.
    let part = |thread: usize, index: usize, rows: Range<usize>, columns: Range<usize>| unsafe {
        let panel = memory.as_ref().map(|memory| Panel::of(memory, thread));
        product.part(panel, index, rows, columns, |rows, columns, sums| {
            for (row, sums) in rows.zip(sums.chunks_exact(TILE)) {
                let first = (index * m + row) * n;
                round_row(sums, product.c.cells(first + columns.start..first + columns.end));
            }
        });
    };
    if batch > 1 || threads.count() == 1 || !worth_sharing(dims) {
        threads.run(batch, |thread, index| part(thread, index, 0..m, 0..n));
    } else {
        shares(threads, [m, n], |thread, rows, columns| part(thread, 0, rows, columns));
    }
    Ok(())
}

/// The linear layers: each thread's share, then `finish` on each of its rows while it is in the cache; `finish_row` on rows of a tile, for 16 bits.
fn linear<T: Element>(
    threads: &Threads,
    panels: &Panels,
    op: &'static str,
    args: &Matmul<'_, CpuBuffer>,
    dims: MatmulDims,
    finish: impl Fn(usize, Range<usize>) + Sync,
    finish_row: impl Fn(usize, Range<usize>, &[Cell<f32>]) + Sync,
) -> Result<()> {
    let product = Product::<T, T>::new(op, args, dims)?;
    let memory = if Product::<T, T>::PLAIN { None } else { Some(panels.memory()?) };
    let memory = memory.as_ref().map(|memory| Floats::new(op, memory.view())).transpose()?;
    let MatmulDims { m, n, .. } = dims;
    let part = |thread: usize, rows: Range<usize>, columns: Range<usize>| {
        // SAFETY: each row's part is its own task's; each thread has its panels.
        unsafe {
            let panel = memory.as_ref().map(|memory| Panel::of(memory, thread));
            product.part(panel, 0, rows.clone(), columns.clone(), |rows, columns, sums| {
                for (row, sums) in rows.zip(sums.chunks_exact(TILE)) {
                    finish_row(row, columns.clone(), &sums[..columns.len()]);
                }
            });
        }
        if Product::<T, T>::PLAIN {
            rows.for_each(|row| finish(row, columns.clone()));
        }
    };
    match worth_sharing(dims) {
        true => shares(threads, [m, n], part),
        false => part(0, 0..m, 0..n),
    }
    Ok(())
}

kernel! {
    /// `y = sums + bias`.
    fn bias_row<'a, S, T>(simd, sums: &'a [Cell<f32>], bias: &'a [Cell<T>], y: &'a [Cell<T>]) {
        lanes!(S, y.len(), |i, w| {
            (Lanes::load(simd, sums, i, w) + Lanes::load(simd, bias, i, w)).store(y, i, w);
        });
    }
}

pub(crate) fn matmul_bias<T: Element>(
    threads: &Threads,
    panels: &Panels,
    args: MatmulBias<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "matmul_bias";
    let dims = args.check()?;
    let (bias, y) = (Floats::<T>::new(OP, args.bias)?, Floats::<T>::new(OP, args.y)?);
    let n = dims.n;
    if n == 0 {
        return Ok(());
    }
    linear::<T>(
        threads,
        panels,
        OP,
        &args.product(),
        dims,
        |row, columns| {
            let range = row * n + columns.start..row * n + columns.end;
            // SAFETY: the operands are apart; each row's part is its own task's.
            let (y, bias) = unsafe { (y.cells(range), bias.cells(columns)) };
            bias_rows(y, bias);
        },
        |row, columns, sums| {
            let range = row * n + columns.start..row * n + columns.end;
            // SAFETY: as above.
            let (y, bias) = unsafe { (y.cells(range), bias.cells(columns)) };
            bias_row(sums, bias, y);
        },
    )
}

kernel! {
    /// `pre = sums + bias`, `y = gelu(pre)`.
    fn bias_gelu_row<'a, S, T>(
        simd,
        sums: &'a [Cell<f32>],
        bias: &'a [Cell<T>],
        pre: &'a [Cell<T>],
        y: &'a [Cell<T>],
    ) {
        lanes!(S, y.len(), |i, w| {
            // Of what is kept for the backward, as if it had been read back.
            let x = (Lanes::load(simd, sums, i, w) + Lanes::load(simd, bias, i, w)).rounded::<T>();
            x.store(pre, i, w);
            gelu_of(x).store(y, i, w);
        });
    }
}

pub(crate) fn matmul_bias_gelu<T: Element>(
    threads: &Threads,
    panels: &Panels,
    args: MatmulBiasGelu<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "matmul_bias_gelu";
    let dims = args.check()?;
    let bias = Floats::<T>::new(OP, args.bias)?;
    let (pre, y) = (Floats::<T>::new(OP, args.pre)?, Floats::<T>::new(OP, args.y)?);
    let n = dims.n;
    if n == 0 {
        return Ok(());
    }
    linear::<T>(
        threads,
        panels,
        OP,
        &args.product(),
        dims,
        |row, columns| {
            let range = row * n + columns.start..row * n + columns.end;
            // SAFETY: the operands are apart; each row's part is its own task's.
            let (pre, bias, y) = unsafe { (pre.cells(range.clone()), bias.cells(columns), y.cells(range)) };
            bias_gelu_rows(pre, bias, y);
        },
        |row, columns, sums| {
            let range = row * n + columns.start..row * n + columns.end;
            // SAFETY: as above.
            let (pre, bias, y) = unsafe { (pre.cells(range.clone()), bias.cells(columns), y.cells(range)) };
            bias_gelu_row(sums, bias, pre, y);
        },
    )
}
