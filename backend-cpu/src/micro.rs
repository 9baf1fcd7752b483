//! A small matrix product for operands that are in the cache: what attention is made of.
//!
//! A tile of 6 rows and two vectors of columns stays in registers for the whole of the inner dimension, so that each element is one chain of fused
//! multiply-adds in the order of `k`, whatever the other extents are.

use std::cell::Cell;

use pulp::{Simd, WithSimd};

/// Rows of a tile.
pub(crate) const TILE: usize = 6;

/// The widest tile's columns: extents that [`product`] runs over in its columns are padded to it in memory.
pub(crate) const COLUMNS: usize = 32;

/// A matrix in memory: element `[i, j]` at `i rows + j columns`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) cells: &'a [Cell<f32>],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `stride` apart.
    #[inline(always)]
    pub(crate) fn rows(cells: &'a [Cell<f32>], stride: usize) -> Self {
        Self { cells, rows: stride, columns: 1 }
    }

    /// The part from element `[i, j]` on.
    #[inline(always)]
    pub(crate) fn from(self, i: usize, j: usize) -> Self {
        Self { cells: &self.cells[i * self.rows + j * self.columns..], ..self }
    }

    /// The transpose.
    #[inline(always)]
    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, ..self }
    }

    /// The address of element `[0, 0]`, having checked that element `[m - 1, n - 1]` is inside.
    #[inline(always)]
    fn start(&self, m: usize, n: usize) -> *mut f32 {
        assert!(
            (m - 1) * self.rows + (n - 1) * self.columns < self.cells.len(),
            "a matrix leaves its memory"
        );
        self.cells.as_ptr().cast::<f32>().cast_mut()
    }
}

/// `c[0..m, 0..n] = a[0..m, 0..k] b[0..k, 0..n]`, added to `c` where `accumulate`. `b` and `c` have columns one element apart; `n`, rounded up to whole
/// tiles, is the number of columns that are read and written.
#[inline(always)]
pub(crate) fn product<S: Simd>(
    simd: S,
    extents: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Matrix<'_>,
    accumulate: bool,
) {
    // A function of its own, not inlined into every caller, yet compiled with their instruction set.
    simd.vectorize(Product { extents, a, b, c, accumulate });
}

struct Product<'a> {
    extents: [usize; 3],
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: Matrix<'a>,
    accumulate: bool,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { extents: [m, n, k], a, b, c, accumulate } = self;
        if m == 0 || n == 0 || k == 0 {
            assert!(m == 0 || n == 0 || accumulate, "an empty sum that overwrites is not needed");
            return;
        }
        let width = 2 * S::F32_LANES;
        let n = n.next_multiple_of(width);
        assert!(b.columns == 1 && c.columns == 1 && width <= COLUMNS);
        let (a_start, b_start, c_start) = (a.start(m, k), b.start(k, n), c.start(m, n));
        for i in (0..m).step_by(TILE) {
            for j in (0..n).step_by(width) {
                // SAFETY: `start` has checked the corners of what the tiles touch; cells are this thread's.
                unsafe {
                    let a_tile = (a_start.add(i * a.rows).cast_const(), a.rows, a.columns);
                    let b_tile = (b_start.add(j).cast_const(), b.rows);
                    let c_tile = (c_start.add(i * c.rows + j), c.rows);
                    match m - i {
                        1 => tile::<S, 1>(simd, k, a_tile, b_tile, c_tile, accumulate),
                        2 => tile::<S, 2>(simd, k, a_tile, b_tile, c_tile, accumulate),
                        3 => tile::<S, 3>(simd, k, a_tile, b_tile, c_tile, accumulate),
                        4 => tile::<S, 4>(simd, k, a_tile, b_tile, c_tile, accumulate),
                        5 => tile::<S, 5>(simd, k, a_tile, b_tile, c_tile, accumulate),
                        _ => tile::<S, TILE>(simd, k, a_tile, b_tile, c_tile, accumulate),
                    }
                }
            }
        }
    }
}

/// `c[i, 0..n] = a[i, 0..=first + i] b[0..=first + i, 0..n]` for each `i < m`, which is at most [`TILE`]: a product that does not look ahead, so that not
/// even a NaN there matters.
#[inline(always)]
pub(crate) fn product_causal<S: Simd>(
    simd: S,
    [m, n, first]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Matrix<'_>,
) {
    product(simd, [m, n, first + 1], a, b, c, false);
    for i in 1..m {
        product(simd, [m - i, n, 1], a.from(i, first + i), b.from(first + i, 0), c.from(i, 0), true);
    }
}

/// A tile of `M` rows and two vectors.
///
/// # Safety
/// The tiles that the pointers and strides describe are in bounds, and no other thread writes them.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(
    simd: S,
    k: usize,
    (a, a_row, a_column): (*const f32, usize, usize),
    (b, b_row): (*const f32, usize),
    (c, c_row): (*mut f32, usize),
    accumulate: bool,
) {
    // SAFETY: in bounds, says the caller; vectors are plain data, read and written unaligned.
    unsafe {
        let load = |p: *const f32| p.cast::<S::f32s>().read_unaligned();
        let mut sums = [[simd.splat_f32s(0.0); 2]; M];
        for step in 0..k {
            let (a, b) = (a.add(step * a_column), b.add(step * b_row));
            let b = [load(b), load(b.add(S::F32_LANES))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(*a.add(i * a_row));
                sums[0] = simd.mul_add_e_f32s(a, b[0], sums[0]);
                sums[1] = simd.mul_add_e_f32s(a, b[1], sums[1]);
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let c = c.add(i * c_row + half * S::F32_LANES);
                let sum = if accumulate { simd.add_f32s(load(c), sum) } else { sum };
                c.cast::<S::f32s>().write_unaligned(sum);
            }
        }
    }
}
