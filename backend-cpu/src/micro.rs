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

/// Which steps of the inner dimension reach all rows of `c`. With the other two a product has at most [`TILE`] rows, and what is left out is not
/// multiplied by 0 but left out: not even a NaN there matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// All of them.
    Straight,
    /// All but the last `m - 1`: of those, each begins a row later. Queries by the keys that they see.
    Last,
    /// All but the first `m - 1`: of those, each reaches a row more. Keys by the queries that see them.
    First,
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
    edge: Edge,
) {
    // A function of its own, not inlined into every caller, yet compiled with their instruction set.
    simd.vectorize(Product { extents, a, b, c, accumulate, edge });
}

struct Product<'a> {
    extents: [usize; 3],
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: Matrix<'a>,
    accumulate: bool,
    edge: Edge,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { extents: [m, n, k], a, b, c, accumulate, edge } = self;
        if m == 0 || n == 0 || k == 0 {
            assert!(m == 0 || n == 0 || accumulate, "an empty sum that overwrites is not needed");
            return;
        }
        assert!(edge == Edge::Straight || (m <= TILE && m <= k), "an edge goes through one tile");
        let width = 2 * S::F32_LANES;
        let n = n.next_multiple_of(width);
        assert!(b.columns == 1 && c.columns == 1 && width <= COLUMNS);
        let (a_start, b_start, c_start) = (a.start(m, k), b.start(k, n), c.start(m, n));
        for i in (0..m).step_by(TILE) {
            let rows = TILE.min(m - i);
            for j in (0..n).step_by(width) {
                // SAFETY: `start` has checked the corners of what the tiles touch; cells are this thread's.
                unsafe {
                    let tile = Tile {
                        k,
                        a: a_start.add(i * a.rows),
                        a_strides: [a.rows, a.columns],
                        b: b_start.add(j),
                        b_stride: b.rows,
                        c: c_start.add(i * c.rows + j),
                        c_stride: c.rows,
                        accumulate,
                    };
                    match edge {
                        Edge::Straight => tile.with_rows::<S, STRAIGHT>(simd, rows),
                        Edge::Last => tile.with_rows::<S, LAST>(simd, rows),
                        Edge::First => tile.with_rows::<S, FIRST>(simd, rows),
                    }
                }
            }
        }
    }
}

const STRAIGHT: u8 = Edge::Straight as u8;
const LAST: u8 = Edge::Last as u8;
const FIRST: u8 = Edge::First as u8;

/// A tile of two vectors of columns, and what is multiplied for it.
struct Tile {
    k: usize,
    a: *const f32,
    a_strides: [usize; 2],
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
}

impl Tile {
    /// # Safety
    /// What the pointers and strides describe is in bounds, and no other thread writes it.
    #[inline(always)]
    unsafe fn with_rows<S: Simd, const EDGE: u8>(&self, simd: S, rows: usize) {
        // SAFETY: the caller's word.
        unsafe {
            match rows {
                1 => self.compute::<S, EDGE, 1>(simd),
                2 => self.compute::<S, EDGE, 2>(simd),
                3 => self.compute::<S, EDGE, 3>(simd),
                4 => self.compute::<S, EDGE, 4>(simd),
                5 => self.compute::<S, EDGE, 5>(simd),
                _ => self.compute::<S, EDGE, TILE>(simd),
            }
        }
    }

    /// # Safety
    /// As [`with_rows`](Self::with_rows).
    #[inline(always)]
    unsafe fn compute<S: Simd, const EDGE: u8, const M: usize>(&self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); 2]; M];
        let (before, after) = match EDGE {
            FIRST => (M - 1, 0),
            LAST => (0, M - 1),
            _ => (0, 0),
        };
        // SAFETY: in bounds, says the caller; vectors are plain data, read and written unaligned.
        unsafe {
            let load = |p: *const f32| p.cast::<S::f32s>().read_unaligned();
            // A step of the inner dimension, for rows `low .. high`.
            macro_rules! step {
                ($step:expr, $low:expr, $high:expr) => {
                    let (a, b) = (self.a.add($step * self.a_strides[1]), self.b.add($step * self.b_stride));
                    let b = [load(b), load(b.add(S::F32_LANES))];
                    for (i, sums) in sums.iter_mut().enumerate() {
                        if ($low..$high).contains(&i) {
                            let a = simd.splat_f32s(*a.add(i * self.a_strides[0]));
                            sums[0] = simd.mul_add_e_f32s(a, b[0], sums[0]);
                            sums[1] = simd.mul_add_e_f32s(a, b[1], sums[1]);
                        }
                    }
                };
            }
            for t in 0..before {
                step!(t, 0, t + 1);
            }
            for t in before..self.k - after {
                step!(t, 0, M);
            }
            for t in 0..after {
                step!(self.k - after + t, t + 1, M);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    let c = self.c.add(i * self.c_stride + half * S::F32_LANES);
                    let sum = if self.accumulate { simd.add_f32s(load(c), sum) } else { sum };
                    c.cast::<S::f32s>().write_unaligned(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(n: usize, value: impl Fn(usize) -> f32) -> Vec<Cell<f32>> {
        (0..n).map(|i| Cell::new(value(i))).collect()
    }

    /// A product in the contract's terms: an edge leaves out what lies beyond it, which is NaN here.
    fn check(run: impl Fn(Product<'_>), edge: Edge, [m, n, k]: [usize; 3]) {
        let (stride, columns) = (n.next_multiple_of(COLUMNS), m + 3);
        let seen = |i: usize, p: usize| match edge {
            Edge::Straight => true,
            Edge::Last => p < k - (m - 1) + i,
            Edge::First => p >= i,
        };
        // A is stored transposed, as attention's backward has it.
        let a = cells(k * columns, |at| {
            let (p, i) = (at / columns, at % columns);
            if i < m && seen(i, p) { (at % 13) as f32 - 6.0 } else { f32::NAN }
        });
        let b = cells(k * stride, |at| (at % 7) as f32 - 3.0);
        let c = cells(m * stride, |at| at as f32);
        let [matrix_a, matrix_b, matrix_c] =
            [Matrix::rows(&a, columns).transposed(), Matrix::rows(&b, stride), Matrix::rows(&c, stride)];
        run(Product { extents: [m, n, k], a: matrix_a, b: matrix_b, c: matrix_c, accumulate: true, edge });
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms =
                (0..k).filter(|&p| seen(i, p)).map(|p| a[p * columns + i].get() * b[p * stride + j].get());
            // Whole numbers: exact in any order.
            assert_eq!(
                c[i * stride + j].get(),
                (i * stride + j) as f32 + terms.sum::<f32>(),
                "{m} {n} {k} at {i} {j}"
            );
        }
    }

    #[test]
    fn products_on_vectors_and_without() {
        for edge in [Edge::Straight, Edge::Last, Edge::First] {
            for m in 1..=if edge == Edge::Straight { 2 * TILE + 1 } else { TILE } {
                for [n, k] in [[1, 13], [16, 17], [33, 40]] {
                    check(|product| pulp::Arch::new().dispatch(product), edge, [m, n, k]);
                    check(|product| pulp::Scalar::new().vectorize(product), edge, [m, n, k]);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "a matrix leaves its memory")]
    fn memory_that_is_too_short_is_not_touched() {
        let (a, b, c) = (cells(4, |_| 1.0), cells(2 * COLUMNS, |_| 1.0), cells(2 * COLUMNS - 1, |_| 1.0));
        let [a, b, c] = [Matrix::rows(&a, 2), Matrix::rows(&b, COLUMNS), Matrix::rows(&c, COLUMNS)];
        pulp::Arch::new().dispatch(Product {
            extents: [2, COLUMNS, 2],
            a,
            b,
            c,
            accumulate: false,
            edge: Edge::Straight,
        });
    }
}
