//! Attention over a cache of keys and values: a task is a few neighbouring rows of one sequence, and a head.
//!
//! The rows of a task go over the keys together, so that each key and value is read once for all of them; what is added to what is the same for a row alone.

use std::cell::Cell;

use backend::Result;
use backend::ops::{AttentionCached, AttentionCachedDims};

use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::{Floats, tokens};
use crate::threads::Threads;

/// Rows of a task.
const ROWS: usize = 4;
/// Vectors of the output that are summed at a time.
const VECTORS: usize = 2;

pub(crate) fn workspace(threads: &Threads, s: usize) -> usize {
    threads.count() * ROWS * s
}

/// Where a row stands: slot, position, shared slot, shared length.
type Place = [u32; 4];

/// The rows in runs of at most [`ROWS`] that see the same sequence, padding apart: first row, and how many.
fn runs(places: &[Place], held: impl Fn(&Place) -> bool) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (row, place) in places.iter().enumerate() {
        let alike = |first: usize| {
            let begin: &Place = &places[first];
            held(begin) && held(place) && begin[0] == place[0] && begin[2..] == place[2..]
        };
        match runs.last_mut() {
            Some((first, count)) if *count < ROWS && alike(*first) => *count += 1,
            _ => runs.push((row, 1)),
        }
    }
    runs
}

/// A run of rows of one head.
struct Rows<'a, T> {
    /// Elements between the queries, and between the outputs.
    strides: [usize; 2],
    /// From the first query on, and from the first output on.
    queries: &'a [Cell<T>],
    out: &'a [Cell<T>],
    /// The last key that each row sees, behind it.
    ends: [usize; ROWS],
    count: usize,
    scale: f32,
    d: usize,
    /// Keys or values from the shared slot, and from the own one on: `[shared length]`, `[rest]`.
    keys: [&'a [Cell<T>]; 2],
    values: [&'a [Cell<T>]; 2],
    shared: usize,
    /// `[ROWS, s]`.
    scores: &'a [Cell<f32>],
    s: usize,
}

impl<T> Rows<'_, T> {
    /// Row `k` of keys or values.
    #[inline(always)]
    fn entry<'v>(&self, from: &[&'v [Cell<T>]; 2], k: usize) -> &'v [Cell<T>] {
        &from[usize::from(k >= self.shared)][k * self.d..(k + 1) * self.d]
    }
}

kernel! {
    fn attend<'a, S, T>(simd, rows: Rows<'a, T>) {
        let Rows { strides: [query_stride, out_stride], queries, out, ends, count, scale, d, scores, s, .. } = rows;
        let longest = ends[..count].iter().copied().max().unwrap_or(0);
        let query = |row: usize| &queries[row * query_stride..][..d];
        for k in 0..longest {
            let key = rows.entry(&rows.keys, k);
            let mut sums = [Lanes::splat(simd, 0.0); ROWS];
            lanes!(S, d, |i, w| {
                let key = Lanes::load(simd, key, i, w);
                for (row, sum) in sums[..count].iter_mut().enumerate() {
                    *sum = Lanes::load(simd, query(row), i, w).mul_add(key, *sum);
                }
            });
            for (row, sum) in sums[..count].iter().enumerate() {
                scores[row * s + k].set(scale * sum.sum());
            }
        }
        let mut inverse = [0.0; ROWS];
        for (row, inverse) in inverse[..count].iter_mut().enumerate() {
            let scores = &scores[row * s..][..ends[row]];
            let mut max = Lanes::splat(simd, f32::NEG_INFINITY);
            lanes!(S, scores.len(), |k, w| { max = max.max(Lanes::load_or(simd, scores, k, w, f32::NEG_INFINITY)); });
            let max = Lanes::splat(simd, max.largest_number());
            let mut sum = Lanes::splat(simd, 0.0);
            lanes!(S, scores.len(), |k, w| {
                let p = (Lanes::load_or(simd, scores, k, w, f32::NEG_INFINITY) - max).exp();
                sum = sum + p;
                p.store(scores, k, w);
            });
            *inverse = 1.0 / sum.sum();
        }
        for first in (0..d).step_by(VECTORS * S::F32_LANES) {
            let width = d.min(first + VECTORS * S::F32_LANES) - first;
            let mut sums = [[Lanes::splat(simd, 0.0); VECTORS]; ROWS];
            for k in 0..longest {
                let value = &rows.entry(&rows.values, k)[first..][..width];
                lanes!(S, width, |i, w| {
                    let value = Lanes::load(simd, value, i, w);
                    for row in 0..count {
                        if k < ends[row] {
                            let p = Lanes::splat(simd, scores[row * s + k].get());
                            sums[row][i / S::F32_LANES] = p.mul_add(value, sums[row][i / S::F32_LANES]);
                        }
                    }
                });
            }
            for (row, sums) in sums[..count].iter().enumerate() {
                let (to, inverse) = (&out[row * out_stride + first..][..width], Lanes::splat(simd, inverse[row]));
                lanes!(S, width, |i, w| {
                    (sums[i / S::F32_LANES] * inverse).store(to, i, w);
                });
            }
        }
    }
}

pub(crate) fn attention_cached<T: Element>(
    threads: &Threads,
    args: AttentionCached<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "attention_cached";
    let AttentionCachedDims { t, a, d, n, s } = args.check()?;
    let (qkv, cache) = (Floats::<T>::new(OP, args.qkv)?, Floats::<T>::new(OP, args.cache)?);
    let out = Floats::<T>::new(OP, args.out)?;
    let scratch = Floats::workspace(OP, args.workspace, workspace(threads, s))?;
    let (places, rest) = tokens(args.places).as_chunks::<4>();
    debug_assert!(rest.is_empty());
    let held = |place: &Place| (place[0] as usize) < n && (place[1] as usize) < s;
    // First element of a head's keys (0) or values (1) in a slot.
    let at = |slot: u32, head: usize, which: usize| ((slot as usize * a + head) * 2 + which) * s * d;
    threads.pieces(t, super::row_grain(3 * a * d), |rows| {
        for row in rows.filter(|&row| held(&places[row])) {
            let [slot, position, ..] = places[row];
            for (head, which) in (0..a).flat_map(|head| [(head, 0), (head, 1)]) {
                let from = ((row * a + head) * 3 + 1 + which) * d;
                let to = at(slot, head, which) + position as usize * d;
                // SAFETY: the operands are apart, and no two rows have one place.
                let (from, to) = unsafe { (qkv.cells(from..from + d), cache.cells(to..to + d)) };
                to.iter().zip(from).for_each(|(to, from)| to.set(from.get()));
            }
        }
    });
    let runs = runs(places, held);
    threads.run(runs.len() * a, |thread, task| {
        let ((first, count), head) = (runs[task / a], task % a);
        let [slot, _, shared_slot, shared] = places[first];
        // SAFETY: each row's part of the output is its own task's.
        let out = unsafe { out.cells((first * a + head) * d..((first + count - 1) * a + head + 1) * d) };
        if !held(&places[first]) {
            return out.iter().for_each(|out| out.set(T::default()));
        }
        let shared = if (shared_slot as usize) < n { (shared as usize).min(s) } else { 0 };
        let slots = [if shared > 0 { shared_slot } else { slot }, slot];
        let of_slot = |slot: u32, which: usize| {
            let first = at(slot, head, which);
            // SAFETY: nobody writes the cache any more.
            unsafe { cache.cells(first..first + s * d) }
        };
        let from = |which: usize| slots.map(|slot| of_slot(slot, which));
        let mut ends = [0; ROWS];
        for (end, place) in ends.iter_mut().zip(&places[first..first + count]) {
            *end = place[1] as usize + 1;
        }
        attend(Rows {
            strides: [3 * a * d, a * d],
            // SAFETY: nobody writes them.
            queries: unsafe { qkv.cells((first * a + head) * 3 * d..qkv.len()) },
            out,
            ends,
            count,
            scale: args.scale,
            d,
            keys: from(0),
            values: from(1),
            shared,
            // SAFETY: each thread has its own.
            scores: unsafe { scratch.cells(thread * ROWS * s..(thread + 1) * ROWS * s) },
            s,
        });
    });
    Ok(())
}
