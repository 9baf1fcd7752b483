//! Gradient of causal attention, a head of a sequence at a time.
//!
//! Queries go in blocks: six at a time for the probabilities, recomputed from the log-sum-exp, for the scores' gradients and for the queries' own; then
//! the whole block for what it adds to the gradients of the keys and the values.

use std::cell::Cell;

use backend::Result;
use backend::ops::{AttentionBackward, AttentionDims};

use super::attention::{Head, HeadDropout, carve, copy_row};
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::micro::{Edge, Matrix, TILE, product};
use crate::operand::Floats;
use crate::threads::Threads;

/// Queries of a block: long enough that reading and writing the keys' and values' gradients does not count, short enough for the second-level cache.
const BLOCK: usize = 8 * TILE;

/// What a thread needs for a head.
fn scratch_len(head: &Head) -> usize {
    2 * head.d * head.s_padded
        + (3 * head.s + 2 * BLOCK + TILE) * head.d_padded
        + (2 * BLOCK + 1) * head.s_padded
}

pub(crate) fn attention_backward_workspace(threads: &Threads, dims: AttentionDims) -> usize {
    threads.count() * scratch_len(&Head::new(dims, 1.0))
}

/// A head's operands: `qkv` and `dqkv` begin at its first query, `out` and `dout` at its first output.
struct Operands<'a, T> {
    qkv: &'a [Cell<T>],
    out: &'a [Cell<T>],
    lse: &'a [Cell<f32>],
    dout: &'a [Cell<T>],
    dqkv: &'a [Cell<T>],
    dropout: Option<HeadDropout>,
    scratch: &'a [Cell<f32>],
}

kernel! {
    fn backward_head<'a, S, T>(simd, head: Head, operands: Operands<'a, T>) {
        let Head { s, s_padded, d, d_padded, qkv_stride, out_stride, scale } = head;
        let Operands { qkv, out, lse, dout, dqkv, dropout, mut scratch } = operands;
        let keys_transposed = carve(&mut scratch, d * s_padded);
        let values_transposed = carve(&mut scratch, d * s_padded);
        let keys = carve(&mut scratch, s * d_padded);
        let dkeys = carve(&mut scratch, s * d_padded);
        let dvalues = carve(&mut scratch, s * d_padded);
        let queries = carve(&mut scratch, BLOCK * d_padded);
        let douts = carve(&mut scratch, BLOCK * d_padded);
        let dqueries = carve(&mut scratch, TILE * d_padded);
        let probabilities = carve(&mut scratch, BLOCK * s_padded);
        let dscores = carve(&mut scratch, BLOCK * s_padded);
        let kept = carve(&mut scratch, s_padded);
        head.pack_transposed(&qkv[d..], keys_transposed);
        head.pack_transposed(&qkv[2 * d..], values_transposed);
        head.pack_rows(simd, &qkv[d..], qkv_stride, keys);
        dkeys.iter().chain(dvalues).for_each(|x| x.set(0.0));
        let scale_lanes = Lanes::splat(simd, scale);
        for block in (0..s).step_by(BLOCK) {
            let in_block = BLOCK.min(s - block);
            head.pack_rows(simd, &qkv[block * qkv_stride..], qkv_stride, &queries[..in_block * d_padded]);
            head.pack_rows(simd, &dout[block * out_stride..], out_stride, &douts[..in_block * d_padded]);
            // Here and not in the loop below, so that the rows' way from memory overlaps.
            let mut dots = [0.0; BLOCK];
            for (i, dot) in dots[..in_block].iter_mut().enumerate() {
                let out = &out[(block + i) * out_stride..];
                let mut sum = Lanes::splat(simd, 0.0);
                lanes!(S, d, |j, w| {
                    sum = Lanes::load(simd, out, j, w)
                        .mul_add(Lanes::load(simd, douts, i * d_padded + j, w), sum);
                });
                *dot = sum.sum();
            }
            for tile in (0..in_block).step_by(TILE) {
                let rows = TILE.min(in_block - tile);
                let seen = block + tile + rows;
                let at = |x: &'a [Cell<f32>], stride: usize| Matrix::rows(&x[tile * stride..], stride);
                let (p_tile, ds_tile) = (at(probabilities, s_padded), at(dscores, s_padded));
                let keys_t = Matrix::rows(keys_transposed, s_padded);
                let values_t = Matrix::rows(values_transposed, s_padded);
                product(simd, [rows, seen, d], at(queries, d_padded), keys_t, p_tile, false, Edge::Straight);
                product(simd, [rows, seen, d], at(douts, d_padded), values_t, ds_tile, false, Edge::Straight);
                for i in 0..rows {
                    let q = block + tile + i;
                    let p_row = &p_tile.cells[i * s_padded..][..q + 1];
                    let ds_row = &ds_tile.cells[i * s_padded..][..q + 1];
                    let dot = Lanes::splat(simd, dots[tile + i]);
                    let minus_lse = Lanes::splat(simd, -lse[q].get());
                    match &dropout {
                        None => lanes!(S, q + 1, |j, w| {
                            let p = Lanes::load(simd, p_row, j, w).mul_add(scale_lanes, minus_lse).exp();
                            let dp = Lanes::load(simd, ds_row, j, w);
                            p.store(p_row, j, w);
                            (p * (dp - dot) * scale_lanes).store(ds_row, j, w);
                        }),
                        Some(dropout) => {
                            dropout.row(q, s, &kept[..q + 1]);
                            lanes!(S, q + 1, |j, w| {
                                let p = Lanes::load(simd, p_row, j, w).mul_add(scale_lanes, minus_lse).exp();
                                let kept = Lanes::load(simd, kept, j, w);
                                let dp = Lanes::load(simd, ds_row, j, w) * kept;
                                (p * kept).store(p_row, j, w);
                                (p * (dp - dot) * scale_lanes).store(ds_row, j, w);
                            });
                        }
                    }
                }
                let keys = Matrix::rows(keys, d_padded);
                let to = Matrix::rows(dqueries, d_padded);
                product(simd, [rows, d, seen], ds_tile, keys, to, false, Edge::Last);
                for i in 0..rows {
                    let to = &dqkv[(block + tile + i) * qkv_stride..];
 copy_row(simd, &dqueries[i * d_padded..], to, d);
                }
            }
            for (of_scores, of_outputs, gradient) in
                [(probabilities, douts, dvalues), (dscores, queries, dkeys)]
            {
                let add = |key: usize, keys: usize, from: usize, edge: Edge| {
                    let weights = Matrix::rows(of_scores, s_padded).from(from, key).transposed();
                    let vectors = Matrix::rows(of_outputs, d_padded).from(from, 0);
                    let to = Matrix::rows(gradient, d_padded).from(key, 0);
                    product(simd, [keys, d, in_block - from], weights, vectors, to, true, edge);
                };
                // Keys before the block are seen by all of it, those inside by the queries from their own on.
                add(0, block, 0, Edge::Straight);
                for tile in (0..in_block).step_by(TILE) {
                    add(block + tile, TILE.min(in_block - tile), tile, Edge::First);
                }
            }
        }
        for (i, gradient) in [dkeys, dvalues].into_iter().enumerate() {
            for (t, from) in gradient.chunks_exact(d_padded).enumerate() {
                copy_row(simd, from, &dqkv[t * qkv_stride + (i + 1) * d..], d);
            }
        }
    }
}

pub(crate) fn attention_backward<T: Element>(
    threads: &Threads,
    args: AttentionBackward<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "attention_backward";
    let dims = args.check()?;
    let AttentionDims { b, s, a, d } = dims;
    let head = Head::new(dims, args.scale);
    let (qkv, out, lse) =
        (Floats::<T>::new(OP, args.qkv)?, Floats::<T>::new(OP, args.out)?, Floats::new(OP, args.lse)?);
    let (dout, dqkv) = (Floats::<T>::new(OP, args.dout)?, Floats::<T>::new(OP, args.dqkv)?);
    let scratch = Floats::workspace(OP, args.workspace, attention_backward_workspace(threads, dims))?;
    if s == 0 {
        return Ok(());
    }
    threads.run(b * a, |thread, task| {
        let (sequence, index) = (task / a, task % a);
        let first = sequence * s * a + index;
        let len = scratch_len(&head);
        // SAFETY: the operands are apart; each head's gradients are its own task's, each thread has its scratch memory.
        let operands = unsafe {
            Operands {
                qkv: qkv.cells(first * 3 * d..qkv.len()),
                out: out.cells(first * d..out.len()),
                lse: lse.cells(task * s..(task + 1) * s),
                dout: dout.cells(first * d..dout.len()),
                dqkv: dqkv.cells(first * 3 * d..dqkv.len()),
                dropout: args.dropout.as_ref().map(|dropout| HeadDropout::new(dropout, sequence, index, s)),
                scratch: scratch.cells(thread * len..(thread + 1) * len),
            }
        };
        backward_head(head, operands);
    });
    Ok(())
}
