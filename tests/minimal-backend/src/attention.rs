//! Causal attention with the whole row of probabilities at hand.

use backend::Result;
use backend::ops::{
    Attention, AttentionBackward, AttentionCached, AttentionCachedDims, AttentionDims, AttentionDropout,
};
use backend::philox::drop_below;

use crate::memory::{Bytes, numbers, set_numbers, tokens};

/// Where rows of `[b, s, a, 3, d]` and `[b, s, a, d]` begin.
struct Rows(AttentionDims);

impl Rows {
    fn qkv(&self, [b, t, head]: [usize; 3], which: usize) -> usize {
        (((b * self.0.s + t) * self.0.a + head) * 3 + which) * self.0.d
    }

    fn out(&self, [b, t, head]: [usize; 3]) -> usize {
        ((b * self.0.s + t) * self.0.a + head) * self.0.d
    }

    /// Every query: sequence, token, head.
    fn queries(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let AttentionDims { b, s, a, .. } = self.0;
        (0..b).flat_map(move |b| (0..a).flat_map(move |head| (0..s).map(move |t| [b, t, head])))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What dropout multiplies the probability of key `k` by.
fn kept(dropout: Option<AttentionDropout>, s: usize, [b, q, head]: [usize; 3], k: usize) -> f64 {
    match dropout {
        None => 1.0,
        Some(dropout) => {
            let word = dropout.stream.word(dropout.row(b, head, q, s).wrapping_add(k as u64));
            if word >= drop_below(dropout.p) { f64::from(dropout.scale()) } else { 0.0 }
        }
    }
}

/// See [`Attention`].
pub fn forward(args: Attention<'_, Bytes>) -> Result<()> {
    let rows = Rows(args.check()?);
    let AttentionDims { b, s, a, d } = rows.0;
    let (qkv, scale) = (numbers(args.qkv), f64::from(args.scale));
    let (mut out, mut lse) = (vec![0.0; b * s * a * d], vec![0.0; b * a * s]);
    for at @ [b, q, head] in rows.queries() {
        let row = |t: usize, which: usize| {
            let start = rows.qkv([b, t, head], which);
            &qkv[start..start + d]
        };
        let scores: Vec<f64> = (0..=q).map(|k| scale * dot(row(q, 0), row(k, 1))).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
        lse[(b * a + head) * s + q] = highest + total.ln();
        let start = rows.out(at);
        for (k, score) in scores.iter().enumerate() {
            let weight = (score - highest).exp() / total * kept(args.dropout, s, at, k);
            out[start..start + d].iter_mut().zip(row(k, 2)).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    set_numbers("attention", args.out, &out)?;
    set_numbers("attention", args.lse, &lse)
}

/// See [`AttentionBackward`].
pub fn backward(args: AttentionBackward<'_, Bytes>) -> Result<()> {
    let rows = Rows(args.check()?);
    let AttentionDims { s, a, d, .. } = rows.0;
    let (qkv, out, lse, dout) = (numbers(args.qkv), numbers(args.out), numbers(args.lse), numbers(args.dout));
    let scale = f64::from(args.scale);
    let mut dqkv = vec![0.0; qkv.len()];
    for at @ [b, q, head] in rows.queries() {
        let place = |t: usize, which: usize| rows.qkv([b, t, head], which);
        let row = |t: usize, which: usize| &qkv[place(t, which)..place(t, which) + d];
        let upstream = &dout[rows.out(at)..rows.out(at) + d];
        let delta = dot(upstream, &out[rows.out(at)..rows.out(at) + d]);
        for k in 0..=q {
            let probability = (scale * dot(row(q, 0), row(k, 1)) - lse[(b * a + head) * s + q]).exp();
            let factor = kept(args.dropout, s, at, k);
            let ds = probability * (factor * dot(upstream, row(k, 2)) - delta) * scale;
            for i in 0..d {
                dqkv[place(q, 0) + i] += ds * row(k, 1)[i];
                dqkv[place(k, 1) + i] += ds * row(q, 0)[i];
                dqkv[place(k, 2) + i] += probability * factor * upstream[i];
            }
        }
    }
    set_numbers("attention_backward", args.dqkv, &dqkv)
}

/// See [`AttentionCached`].
pub fn cached(args: AttentionCached<'_, Bytes>) -> Result<()> {
    let AttentionCachedDims { t, a, d, n, s } = args.check()?;
    let (qkv, mut cache, scale) = (numbers(args.qkv), numbers(args.cache), f64::from(args.scale));
    let places = tokens(args.places);
    let places = || places.chunks(4).enumerate().filter(|(_, place)| place[0] < n && place[1] < s);
    let entry =
        |slot: usize, head: usize, which: usize, k: usize| (((slot * a + head) * 2 + which) * s + k) * d;
    let new = |row: usize, head: usize, which: usize| {
        let start = ((row * a + head) * 3 + which) * d;
        &qkv[start..start + d]
    };
    for (row, place) in places() {
        for (head, which) in (0..a).flat_map(|head| [(head, 0), (head, 1)]) {
            let start = entry(place[0], head, which, place[1]);
            cache[start..start + d].copy_from_slice(new(row, head, 1 + which));
        }
    }
    let mut out = vec![0.0; t * a * d];
    for (row, place) in places() {
        let slot = |k: usize| if place[2] < n && k < place[3] { place[2] } else { place[0] };
        for head in 0..a {
            let stored = |which: usize, k: usize| {
                let start = entry(slot(k), head, which, k);
                &cache[start..start + d]
            };
            let scores: Vec<f64> =
                (0..=place[1]).map(|k| scale * dot(new(row, head, 0), stored(0, k))).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
            let out = &mut out[(row * a + head) * d..][..d];
            for (k, score) in scores.iter().enumerate() {
                let weight = (score - highest).exp() / total;
                out.iter_mut().zip(stored(1, k)).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    set_numbers("attention_cached", args.cache, &cache)?;
    set_numbers("attention_cached", args.out, &out)
}
