//! Products with few rows or few columns: those of a decoding step, whose time is that of reading the weights once.
//!
//! A vector's lanes are lines of one factor (rows of `a` or columns of `b`), which are laid out term by term; each element of the other factor is read where
//! it lies, once for all of them. A lane is one chain of fused multiply-adds, as in `gemm`'s tiles.

use std::cell::Cell;

use crate::gemm::{DEPTH, Strided};
use crate::lanes::{Lanes, kernel};
use crate::vector::{self, Matrix};

/// Lanes of the widest vector.
const WIDEST: usize = 16;

/// Lines of the small factor up to which this is faster than packing the other one too: measured with vectors of eight (`cargo bench
/// -p backend-cpu --bench matmul -- decode`).
pub(crate) const FEW: usize = 16;

/// A factor's rows, for `a`, or columns, for `b`.
#[derive(Clone, Copy)]
struct Lines {
    start: *const f32,
    count: usize,
    /// From a line to the next.
    stride: usize,
    /// From a term of a line to its next.
    terms: usize,
}

impl Lines {
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    unsafe fn at(&self, line: usize, term: usize) -> *const f32 {
        // SAFETY: the caller's word.
        unsafe { self.start.add(line * self.stride + term * self.terms) }
    }
}

/// Chains whose terms are laid out at one time: lines are read in pieces of so many, each about a page.
const CHAINS: usize = 4;

/// `c = alpha a b`, added to `c` where `add`, in chains of `depth` terms.
///
/// # Safety
/// The matrices are in bounds, no other thread writes them or reads `c`, and `c` is apart from `a` and `b`.
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    depth: usize,
    a: Strided,
    b: Strided,
    c: Strided,
    alpha: f32,
    add: bool,
) {
    debug_assert!(depth <= DEPTH);
    let rows = Lines { start: a.start.cast_const(), count: m, stride: a.rows, terms: a.columns };
    let columns = Lines { start: b.start.cast_const(), count: n, stride: b.columns, terms: b.rows };
    let large = if m < n { columns } else { rows };
    // The large factor is read along its lines where they lie in one piece, and else across them.
    let lanes_are_rows = (m < n) == (large.terms == 1);
    let (lanes, others, strides) = match lanes_are_rows {
        true => (rows, columns, [c.rows, c.columns]),
        false => (columns, rows, [c.columns, c.rows]),
    };
    let mut done = 0;
    if lanes.count == 1 && lanes.terms == 1 && others.terms == 1 && vector::available() {
        done = others.count / vector::LINES * vector::LINES;
        let matrix = Matrix {
            start: others.start,
            lines: done,
            stride: others.stride,
            results: c.start,
            apart: strides[1],
        };
        // SAFETY: terms in one piece, which nobody writes; the caller's word, and the processor's.
        unsafe { vector::product(std::slice::from_raw_parts(lanes.start, k), depth, matrix, alpha, add) };
    }
    if done == others.count {
        return;
    }
    // SAFETY: lines that there are, and their results.
    let (others, c) = unsafe {
        (
            Lines { start: others.at(done, 0), count: others.count - done, ..others },
            c.start.add(done * strides[1]),
        )
    };
    for first in (0..k).step_by(CHAINS * depth) {
        let terms = [depth, (CHAINS * depth).min(k - first)];
        // SAFETY: terms that there are.
        let [lanes, others] = [lanes, others].map(|x| Lines { start: unsafe { x.at(0, first) }, ..x });
        blocks(lanes, others, terms, c, strides, alpha, add || first > 0);
    }
}

kernel! {
    /// Only for [`product`], whose caller vouches for the memory. `terms` of a chain, and of all that are laid out; `strides` of `c` between lanes, and between
    /// the other factor's lines.
    fn blocks<'a, S>(simd, lanes: Lines, others: Lines, terms: [usize; 2], c: *mut f32, strides: [usize; 2], alpha: f32, add: bool) {
        let mut first = 0;
        while first < lanes.count {
            // SAFETY: a line that there is.
            let start = unsafe { lanes.at(first, 0) };
            let lanes = Lines { start, count: lanes.count - first, ..lanes };
            let block = Block { lanes, others, terms, c: c.wrapping_add(first * strides[0]), strides, alpha, add };
            // As many chains side by side as hide a multiply-add's delay, and stay in registers.
            // SAFETY: the caller of `product` vouches for the lines, terms and results.
            first += S::F32_LANES * unsafe {
                match lanes.count <= S::F32_LANES {
                    true => block.compute::<S, 1, 8>(simd),
                    false => block.compute::<S, 2, 6>(simd),
                }
            };
        }
    }
}

/// Lines that are lanes, with all lines of the other factor.
struct Block {
    lanes: Lines,
    others: Lines,
    terms: [usize; 2],
    c: *mut f32,
    strides: [usize; 2],
    alpha: f32,
    add: bool,
}

impl Block {
    /// The first `V` vectors of lanes by `J` lines at a time. Returns `V`.
    ///
    /// # Safety
    /// The lines, terms and results are in bounds, and no other thread writes them or reads the results.
    #[inline(always)]
    unsafe fn compute<S: pulp::Simd, const V: usize, const J: usize>(&self, simd: S) -> usize {
        let Self { lanes, others, terms: [depth, k], .. } = *self;
        let width = |v: usize| S::F32_LANES.min(lanes.count.saturating_sub(v * S::F32_LANES));
        let mut terms = [[Lanes::splat(simd, 0.0); V]; CHAINS * DEPTH];
        for (p, terms) in terms[..k].iter_mut().enumerate() {
            for (v, term) in terms.iter_mut().enumerate() {
                let mut lane = [0.0; WIDEST];
                for (l, lane) in lane[..width(v)].iter_mut().enumerate() {
                    // SAFETY: within the lines and terms.
                    *lane = unsafe { *lanes.at(v * S::F32_LANES + l, p) };
                }
                *term = Lanes::load(simd, Cell::from_mut(&mut lane[..]).as_slice_of_cells(), 0, S::F32_LANES);
            }
        }
        for first in (0..others.count).step_by(J) {
            let count = J.min(others.count - first);
            // Behind the end the last line stands once more.
            // SAFETY: within the lines.
            let lines: [*const f32; J] =
                std::array::from_fn(|j| unsafe { others.at(first + j.min(count - 1), 0) });
            for (chain, terms) in terms[..k].chunks(depth).enumerate() {
                let begin = chain * depth;
                let mut sums = [[Lanes::splat(simd, 0.0); V]; J];
                for (p, terms) in terms.iter().enumerate() {
                    for (line, sums) in lines.iter().zip(&mut sums) {
                        // SAFETY: within the terms.
                        let other = Lanes::splat(simd, unsafe { *line.add((begin + p) * others.terms) });
                        for (term, sum) in terms.iter().zip(sums) {
                            *sum = term.mul_add(other, *sum);
                        }
                    }
                }
                let add = self.add || chain > 0;
                for (j, sums) in sums[..count].iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        // SAFETY: within the results.
                        unsafe { self.write(*sum, add, [v * S::F32_LANES, first + j], width(v)) };
                    }
                }
            }
        }
        V
    }

    /// As gemm's tiles write: the product's factor and what was there in one rounding.
    ///
    /// # Safety
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn write<S: pulp::Simd>(&self, sum: Lanes<S>, add: bool, [lane, line]: [usize; 2], width: usize) {
        let at = |l: usize| self.c.wrapping_add((lane + l) * self.strides[0] + line * self.strides[1]);
        let mut held = [0.0; WIDEST];
        let alpha = sum.like(self.alpha);
        let result = match add {
            false => sum * alpha,
            true => {
                for (l, held) in held[..width].iter_mut().enumerate() {
                    // SAFETY: the caller's word.
                    *held = unsafe { *at(l) };
                }
                let held = Cell::from_mut(&mut held[..]).as_slice_of_cells();
                sum.mul_add(alpha, sum.loaded(held))
            }
        };
        result.store(Cell::from_mut(&mut held[..]).as_slice_of_cells(), 0, S::F32_LANES);
        for (l, held) in held[..width].iter().enumerate() {
            // SAFETY: the caller's word.
            unsafe { *at(l) = *held };
        }
    }
}
