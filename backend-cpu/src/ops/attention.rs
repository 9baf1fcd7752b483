//! Causal attention, a head of a sequence at a time.
//!
//! The head's keys, transposed, and its values are packed once. Then six queries at a time: their scores with the keys up to the last of them, the
//! softmax, and the product with the values, all while the scores are in the first-level cache.

use std::cell::Cell;

use backend::Result;
use backend::ops::{Attention, AttentionDims, AttentionDropout};
use backend::philox::drop_below;
use pulp::Simd;

use super::dropout::{FACTORS, Mask, factors};
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::micro::{COLUMNS, Edge, Matrix, TILE, product};
use crate::operand::Floats;
use crate::threads::Threads;

/// Extents of a head, with those that are padded in scratch memory.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Tokens, and the length of a row with an element for each, at least whole tiles.
    pub(crate) s: usize,
    pub(crate) s_padded: usize,
    /// Head size, and its padding to whole tiles.
    pub(crate) d: usize,
    pub(crate) d_padded: usize,
    /// Elements from a token's vector to the next one's: in `qkv`, and in `out`.
    pub(crate) qkv_stride: usize,
    pub(crate) out_stride: usize,
    pub(crate) scale: f32,
}

impl Head {
    pub(crate) fn new(AttentionDims { b: _, s, a, d }: AttentionDims, scale: f32) -> Self {
        Self {
            s,
            // Not a power of two: rows that far apart would share a few lines of the cache.
            s_padded: s.next_multiple_of(COLUMNS) + COLUMNS / 2,
            d,
            d_padded: d.next_multiple_of(COLUMNS),
            qkv_stride: 3 * a * d,
            out_stride: a * d,
            scale,
        }
    }

    /// `to[j, i] = from[i, j]`: `[s, d]` in `qkv` to `[d, s_padded]`.
    #[inline(always)]
    pub(crate) fn pack_transposed<T: Element>(&self, from: &[Cell<T>], to: &[Cell<f32>]) {
        /// Tokens at a time: few enough that what is read stays in the cache, enough to write half a line.
        const TOKENS: usize = 8;
        let whole = self.s / TOKENS * TOKENS;
        for i in (0..whole).step_by(TOKENS) {
            let tokens: [&[Cell<T>]; TOKENS] =
                std::array::from_fn(|t| &from[(i + t) * self.qkv_stride..][..self.d]);
            for (j, to) in to.chunks_exact(self.s_padded).enumerate() {
                let to = &to[i..i + TOKENS];
                for (to, token) in to.iter().zip(&tokens) {
                    to.set(token[j].get().widen());
                }
            }
        }
        for (j, to) in to.chunks_exact(self.s_padded).enumerate() {
            for (i, to) in to.iter().enumerate().skip(whole) {
                to.set(if i < self.s { from[i * self.qkv_stride + j].get().widen() } else { 0.0 });
            }
        }
    }

    /// `to[i, j] = from[i, j]`: rows of `d`, `stride` apart, to rows of `d_padded`.
    #[inline(always)]
    pub(crate) fn pack_rows<S: Simd, T: Element>(
        &self,
        simd: S,
        from: &[Cell<T>],
        stride: usize,
        to: &[Cell<f32>],
    ) {
        for (i, to) in to.chunks_exact(self.d_padded).enumerate() {
            copy_row(simd, &from[i * stride..], to, self.d);
            to[self.d..].iter().for_each(|to| to.set(0.0));
        }
    }
}

/// `to[j] = from[j]`, rounded to its type, for `j < n`.
#[inline(always)]
pub(crate) fn copy_row<S: Simd, T: Element, U: Element>(simd: S, from: &[Cell<T>], to: &[Cell<U>], n: usize) {
    lanes!(S, n, |j, w| {
        Lanes::load(simd, from, j, w).store(to, j, w);
    });
}

/// A head's dropout.
#[derive(Clone, Copy)]
pub(crate) struct HeadDropout {
    mask: Mask,
    /// Index of probability `[0, 0]` in the stream.
    first: u64,
}

impl HeadDropout {
    pub(crate) fn new(dropout: &AttentionDropout, b: usize, a: usize, s: usize) -> Self {
        let mask = Mask { stream: dropout.stream, below: drop_below(dropout.p), scale: dropout.scale() };
        Self { mask, first: dropout.row(b, a, 0, s) }
    }

    /// The factors of the probabilities of query `q`.
    #[inline(always)]
    pub(crate) fn row(&self, q: usize, s: usize, row: &[Cell<f32>]) {
        let first = self.first + q as u64 * s as u64;
        for (i, chunk) in row.chunks(FACTORS).enumerate() {
            factors(self.mask, first + (i * FACTORS) as u64, chunk);
        }
    }
}

/// Takes `n` elements off the front.
pub(crate) fn carve<'a>(scratch: &mut &'a [Cell<f32>], n: usize) -> &'a [Cell<f32>] {
    let (front, rest) = scratch.split_at(n);
    *scratch = rest;
    front
}

/// What a thread needs for a head.
fn scratch_len(head: &Head) -> usize {
    head.d * head.s_padded + (head.s + 2 * TILE) * head.d_padded + (TILE + 1) * head.s_padded
}

pub(crate) fn attention_workspace(threads: &Threads, dims: AttentionDims) -> usize {
    threads.count() * scratch_len(&Head::new(dims, 1.0))
}

kernel! {
    /// `qkv` begins at the head's first query, `out` at its first output; `lse` is the head's.
    fn forward_head<'a, S, T>(
        simd,
        head: Head,
        qkv: &'a [Cell<T>],
        out: &'a [Cell<T>],
        lse: &'a [Cell<f32>],
        dropout: Option<HeadDropout>,
        scratch: &'a [Cell<f32>],
    ) {
        let Head { s, s_padded, d, d_padded, qkv_stride, out_stride, scale } = head;
        let mut scratch = scratch;
        let keys = carve(&mut scratch, d * s_padded);
        let values = carve(&mut scratch, s * d_padded);
        let queries = carve(&mut scratch, TILE * d_padded);
        let outputs = carve(&mut scratch, TILE * d_padded);
        let scores = carve(&mut scratch, TILE * s_padded);
        let kept = carve(&mut scratch, s_padded);
        head.pack_transposed(&qkv[d..], keys);
        head.pack_rows(simd, &qkv[2 * d..], qkv_stride, values);
        let scale_lanes = Lanes::splat(simd, scale);
        for first in (0..s).step_by(TILE) {
            let rows = TILE.min(s - first);
            let seen = first + rows;
            head.pack_rows(simd, &qkv[first * qkv_stride..], qkv_stride, &queries[..rows * d_padded]);
            let queries = Matrix::rows(queries, d_padded);
            let keys = Matrix::rows(keys, s_padded);
            let to = Matrix::rows(scores, s_padded);
            product(simd, [rows, seen, d], queries, keys, to, false, Edge::Straight);
            let mut inverse = [0.0; TILE];
            for (i, inverse) in inverse[..rows].iter_mut().enumerate() {
                let q = first + i;
                let row = &scores[i * s_padded..][..q + 1];
                let mut max = Lanes::splat(simd, f32::NEG_INFINITY);
                lanes!(S, row.len(), |j, w| {
                    max = max.max(Lanes::load(simd, row, j, w) * scale_lanes + max.like(0.0));
                });
                let max = max.largest_number();
                let minus_max = Lanes::splat(simd, -max);
                let mut sum = Lanes::splat(simd, 0.0);
                lanes!(S, row.len(), |j, w| {
                    let p = Lanes::load_or(simd, row, j, w, f32::NEG_INFINITY).mul_add(scale_lanes, minus_max).exp();
                    sum = sum + p;
                    p.store(row, j, w);
                });
                let sum = sum.sum();
                lse[q].set(max + sum.ln());
                *inverse = 1.0 / sum;
                if let Some(dropout) = &dropout {
                    dropout.row(q, s, &kept[..row.len()]);
                    lanes!(S, row.len(), |j, w| {
                        (Lanes::load(simd, row, j, w) * Lanes::load(simd, kept, j, w)).store(row, j, w);
                    });
                }
            }
            let probabilities = Matrix::rows(scores, s_padded);
            let values = Matrix::rows(values, d_padded);
            let to = Matrix::rows(outputs, d_padded);
            product(simd, [rows, d, seen], probabilities, values, to, false, Edge::Last);
            for (i, inverse) in inverse[..rows].iter().enumerate() {
                let inverse = Lanes::splat(simd, *inverse);
                let (from, to) = (&outputs[i * d_padded..], &out[(first + i) * out_stride..]);
                lanes!(S, d, |j, w| { (Lanes::load(simd, from, j, w) * inverse).store(to, j, w); });
            }
        }
    }
}

pub(crate) fn attention<T: Element>(threads: &Threads, args: Attention<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "attention";
    let dims = args.check()?;
    let AttentionDims { b, s, a, d } = dims;
    let head = Head::new(dims, args.scale);
    let (qkv, out, lse) =
        (Floats::<T>::new(OP, args.qkv)?, Floats::<T>::new(OP, args.out)?, Floats::new(OP, args.lse)?);
    let scratch = Floats::workspace(OP, args.workspace, attention_workspace(threads, dims))?;
    if s == 0 {
        return Ok(());
    }
    threads.run(b * a, |thread, task| {
        let (sequence, index) = (task / a, task % a);
        let dropout = args.dropout.as_ref().map(|dropout| HeadDropout::new(dropout, sequence, index, s));
        let len = scratch_len(&head);
        // SAFETY: the operands are apart; each head's outputs are its own task's, each thread has its scratch memory.
        unsafe {
            forward_head(
                head,
                qkv.cells((sequence * s * a + index) * 3 * d..qkv.len()),
                out.cells((sequence * s * a + index) * d..out.len()),
                lse.cells(task * s..(task + 1) * s),
                dropout,
                scratch.cells(thread * len..(thread + 1) * len),
            );
        }
    });
    Ok(())
}
