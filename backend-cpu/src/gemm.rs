//! Products of f32 matrices through the `gemm` crate, with one sum for an element whatever the other extents are.
//!
//! An element of the product is a chain of fused multiply-adds in the order of the inner dimension, begun anew every [`DEPTH`] terms and then added to
//! what was there. That is what `gemm`'s register tiles compute, as long as the inner dimension is no longer than a pass of theirs; where `gemm` has other
//! ways (vectors, results of up to 256 elements, two terms), and where it would be slower, [`chains`] computes the same.

use std::cell::Cell;

use crate::chains::{self, FEW};

/// The longest chain: shorter than a pass of `gemm` on any processor (512), and so that what is packed for a chain stays in the cache.
pub(crate) const DEPTH: usize = 256;

/// Elements of a result that `gemm` may compute by dot products.
const SMALL: usize = 256;

/// A matrix in memory: element `[i, j]` at `start + i rows + j columns`.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) start: *mut f32,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Strided {
    /// The part from element `[i, j]` on.
    ///
    /// # Safety
    /// The element is inside, or one past the end.
    pub(crate) unsafe fn from(self, i: usize, j: usize) -> Self {
        // SAFETY: the caller's word.
        Self { start: unsafe { self.start.add(i * self.rows + j * self.columns) }, ..self }
    }
}

/// The length of the chains of a sum of `k` terms: equal ones, but for the last.
pub(crate) fn chain(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1)
}

/// `c = alpha a b + beta c` for `a` `[m, k]`, `b` `[k, n]`, and `c`'s columns one element apart. With `beta` 0, `c` is not read.
///
/// # Safety
/// The matrices are in bounds, no other thread writes them or reads `c`, and `c` is apart from `a` and `b`.
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    a: Strided,
    b: Strided,
    c: Strided,
    [alpha, beta]: [f32; 2],
) {
    debug_assert_eq!(c.columns, 1);
    let held = match beta {
        0.0 | 1.0 => beta,
        _ => {
            // Here, because gemm rounds it in one order inside and in another at an edge.
            for i in 0..m {
                // SAFETY: rows of the caller's matrix.
                let row = unsafe { std::slice::from_raw_parts(c.from(i, 0).start.cast::<Cell<f32>>(), n) };
                row.iter().for_each(|c| c.set(beta * c.get()));
            }
            1.0
        }
    };
    let depth = chain(k);
    if k > 0 && (m <= FEW || n <= FEW || m * n <= SMALL) {
        // SAFETY: the caller's word.
        return unsafe { chains::product([m, n, k], depth, a, b, c, alpha, held != 0.0) };
    }
    // Once at the least: without an inner dimension c is still to be scaled.
    for first in (0..k.max(1)).step_by(depth) {
        let terms = depth.min(k - first);
        let beta = if first == 0 { held } else { 1.0 };
        // SAFETY: the caller's word.
        unsafe {
            let (a, b) = (a.from(0, first), b.from(first, 0));
            if (1..=2).contains(&terms) {
                chains::product([m, n, terms], depth, a, b, c, alpha, beta != 0.0);
                continue;
            }
            gemm::gemm(
                m,
                n,
                terms,
                c.start,
                c.columns as isize,
                c.rows as isize,
                beta != 0.0,
                a.start.cast_const(),
                a.columns as isize,
                a.rows as isize,
                b.start.cast_const(),
                b.columns as isize,
                b.rows as isize,
                beta,
                alpha,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let stream = backend::philox::Stream { seed, stream: 1 };
        (0..n as u64).map(|i| stream.normal(i) as f32).collect()
    }

    /// Rows and columns of a large product, computed alone: every extent that gemm treats in its own way, every transpose and pair of factors.
    #[test]
    fn an_element_has_the_same_bits_in_any_company() {
        let [m, n] = [150, 140];
        for k in [1, 2, 3, 17, 256, 257, 511, 600, 1030] {
            let (mut a, mut b, held) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                let a_strides = if trans_a { [1, m] } else { [k, 1] };
                let b_strides = if trans_b { [1, k] } else { [n, 1] };
                for factors in [[1.0, 0.0], [1.0, 1.0], [-0.3, 1.0], [0.7, -1.3], [2.5, 0.0]] {
                    let mut part = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
                        let mut c: Vec<f32> =
                            rows.clone().flat_map(|i| held[i * n..][columns.clone()].to_vec()).collect();
                        let strided = |x: &mut [f32], [rows, columns]: [usize; 2]| Strided {
                            start: x.as_mut_ptr(),
                            rows,
                            columns,
                        };
                        // SAFETY: the parts are inside and apart.
                        unsafe {
                            product(
                                [rows.len(), columns.len(), k],
                                strided(&mut a, a_strides).from(rows.start, 0),
                                strided(&mut b, b_strides).from(0, columns.start),
                                strided(&mut c, [columns.len(), 1]),
                                factors,
                            );
                        }
                        c
                    };
                    let whole = part(0..m, 0..n);
                    for (rows, columns) in [
                        (0..1, 0..n),
                        (0..m, 5..6),
                        (7..8, 9..10),
                        (0..2, 0..3),
                        (16..32, 16..32),
                        (3..20, 1..17),
                        (140..150, 100..140),
                        (0..64, 64..128),
                        (0..65, 0..64),
                        (1..150, 0..17),
                        (0..6, 0..n),
                        (75..m, 70..n),
                    ] {
                        let got = part(rows.clone(), columns.clone());
                        let expected = rows.clone().flat_map(|i| &whole[i * n..][columns.clone()]);
                        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
                            assert_eq!(
                                got.to_bits(),
                                expected.to_bits(),
                                "k={k} {trans_a} {trans_b} {factors:?} {rows:?} {columns:?} at {at}: {got} for {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}
