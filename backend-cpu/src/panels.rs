//! Where operands of 16 bits become f32 for a product: a panel of each factor and a tile of the result for each thread, allocated once and kept.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Class, DType, Result, Tensor};

use crate::element::Element;
use crate::gemm::DEPTH;
use crate::lanes::{Lanes, kernel, lanes};
use crate::memory::Pool;
use crate::operand::Floats;
use crate::{CpuBuffer, gemm};

/// Rows, and columns, of a tile: a conversion serves so many multiply-adds.
pub(crate) const TILE: usize = 512;

/// Elements of a thread's share.
const SHARE: usize = 2 * TILE * DEPTH + TILE * TILE;

/// The panels of all threads.
pub(crate) struct Panels {
    pool: Arc<Pool>,
    threads: usize,
    /// Allocated by the first operation that needs it.
    memory: Mutex<Option<Tensor<CpuBuffer>>>,
}

impl Panels {
    pub(crate) fn new(pool: Arc<Pool>, threads: usize) -> Self {
        Self { pool, threads, memory: Mutex::new(None) }
    }

    /// The memory, one share a thread.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](backend::Error::OutOfMemory).
    pub(crate) fn memory(&self) -> Result<Tensor<CpuBuffer>> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = &*memory {
            return Ok(memory.clone());
        }
        let len = self.threads * SHARE;
        let buffer = self.pool.alloc(Class::Workspace, len * DType::F32.size())?;
        let tensor = Tensor::new(buffer, DType::F32, 0, [len])?;
        *memory = Some(tensor.clone());
        Ok(tensor)
    }
}

/// A thread's panels.
pub(crate) struct Panel<'a> {
    a: &'a [Cell<f32>],
    b: &'a [Cell<f32>],
    pub(crate) tile: &'a [Cell<f32>],
}

impl<'a> Panel<'a> {
    /// The share of a thread.
    ///
    /// # Safety
    /// No two of one thread are in use at a time.
    pub(crate) unsafe fn of(memory: &Floats<'a>, thread: usize) -> Self {
        // SAFETY: shares are apart; the rest is the caller's word.
        let share = unsafe { memory.cells(thread * SHARE..(thread + 1) * SHARE) };
        let (a, rest) = share.split_at(TILE * DEPTH);
        let (b, tile) = rest.split_at(TILE * DEPTH);
        Self { a, b, tile }
    }
}

/// Element `[i, j]` at `i rows + j columns`, one of the two strides 1.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, T> {
    pub(crate) cells: &'a [Cell<T>],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

kernel! {
    /// `to` = `count` runs of `len` elements one after the other, which lie `stride` apart.
    fn widen_runs<'a, S, T>(simd, from: &'a [Cell<T>], stride: usize, count: usize, len: usize, to: &'a [Cell<f32>]) {
        for (run, to) in to.chunks_exact(len).enumerate().take(count) {
            let from = &from[run * stride..];
            lanes!(S, len, |i, w| { Lanes::load(simd, from, i, w).store(to, i, w); });
        }
    }
}

/// The part `[rows, columns]` from `[i, j]` on, in f32 and packed, in the order in which it is stored.
fn widen<T: Element>(
    from: Source<'_, T>,
    [i, j]: [usize; 2],
    [rows, columns]: [usize; 2],
    to: &[Cell<f32>],
) -> gemm::Strided {
    let start = to.as_ptr().cast::<f32>().cast_mut();
    if rows * columns == 0 {
        return gemm::Strided { start, rows: 0, columns: 0 };
    }
    let cells = &from.cells[i * from.rows + j * from.columns..];
    match from.columns == 1 {
        true => {
            widen_runs(cells, from.rows, rows, columns, &to[..rows * columns]);
            gemm::Strided { start, rows: columns, columns: 1 }
        }
        false => {
            widen_runs(cells, from.columns, columns, rows, &to[..rows * columns]);
            gemm::Strided { start, rows: 1, columns: rows }
        }
    }
}

/// `c = alpha a b + beta c` as [`gemm::product`] computes it of the widened factors, for a tile of up to [`TILE`] by [`TILE`]: rows from `i` on, columns
/// from `j` on.
///
/// # Safety
/// As [`gemm::product`].
pub(crate) unsafe fn product<T: Element>(
    panel: &Panel<'_>,
    [i, j]: [usize; 2],
    [m, n, k]: [usize; 3],
    a: Source<'_, T>,
    b: Source<'_, T>,
    c: gemm::Strided,
    [alpha, beta]: [f32; 2],
) {
    let depth = gemm::chain(k);
    for first in (0..k.max(1)).step_by(depth) {
        let terms = depth.min(k - first);
        let beta = if first == 0 { beta } else { 1.0 };
        let a = widen(a, [i, first], [m, terms], panel.a);
        let b = widen(b, [first, j], [terms, n], panel.b);
        // SAFETY: the panels hold what was widened; c is the caller's.
        unsafe { gemm::product([m, n, terms], a, b, c, [alpha, beta]) };
    }
}
