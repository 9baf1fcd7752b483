//! Attention of new tokens over a cache.

use crate::{Real, U};

/// Extents and settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionCached {
    /// New tokens.
    pub t: usize,
    /// Slots.
    pub n: usize,
    /// Tokens of a slot.
    pub s: usize,
    /// Heads.
    pub a: usize,
    /// Head size.
    pub d: usize,
    /// Factor of the scores.
    pub scale: f64,
}

impl AttentionCached {
    /// Index of component 0 of key (0) or value (1) `k` in the cache `[n, a, 2, s, d]`.
    pub fn entry(&self, slot: usize, head: usize, which: usize, k: usize) -> usize {
        (((slot * self.a + head) * 2 + which) * self.s + k) * self.d
    }
}

/// `out [t, a, d]`, and what the cache holds then.
pub fn forward<R: Real>(
    p: &AttentionCached,
    qkv: &[R],
    places: &[[u32; 4]],
    cache: &[R],
) -> (Vec<R>, Vec<R>) {
    let AttentionCached { t, n, s, a, d, scale } = *p;
    let held = |place: &[u32; 4]| (place[0] as usize) < n && (place[1] as usize) < s;
    let mut cache = cache.to_vec();
    for (row, place) in places.iter().enumerate().filter(|(_, place)| held(place)) {
        for (head, which) in (0..a).flat_map(|head| [(head, 0), (head, 1)]) {
            let from = ((row * a + head) * 3 + 1 + which) * d;
            let to = p.entry(place[0] as usize, head, which, place[1] as usize);
            cache[to..to + d].copy_from_slice(&qkv[from..from + d]);
        }
    }
    let mut out = vec![R::zero(); t * a * d];
    for (row, place) in places.iter().enumerate().filter(|(_, place)| held(place)) {
        let [slot, position, shared_slot, shared] = place.map(|x| x as usize);
        let slot_of = |k: usize| if shared_slot < n && k < shared { shared_slot } else { slot };
        for head in 0..a {
            let query = &qkv[(row * a + head) * 3 * d..][..d];
            let entry = |which: usize, k: usize| &cache[p.entry(slot_of(k), head, which, k)..][..d];
            let score = |k: usize| {
                R::exact(scale).rounded(U) * R::sum(query.iter().zip(entry(0, k)).map(|(&q, &key)| q * key))
            };
            let scores: Vec<R> = (0..=position).map(score).collect();
            let max = scores.iter().copied().reduce(R::max).map_or(0.0, R::value);
            let rescaled = 2.0 * 4.0 * super::attention::records(&scores) as f64 * U;
            let weight = |&score: &R| (score - R::exact(max)).exp().rounded(rescaled);
            let weights: Vec<R> = scores.iter().map(weight).collect();
            let total = R::sum(weights.iter().copied());
            for i in 0..d {
                let terms = weights.iter().enumerate().map(|(k, &w)| w * entry(1, k)[i]);
                out[(row * a + head) * d + i] = R::sum(terms) / total;
            }
        }
    }
    (out, cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::attention;
    use crate::reference::differences::normal;

    /// A whole sequence at once, and its last token alone over a cache with the rest, are the attention without a cache.
    #[test]
    fn is_causal_attention() {
        let (s, a, d, scale) = (5, 2, 3, 0.7);
        let qkv = normal(1, s * a * 3 * d);
        let whole = attention::Attention { b: 1, s, a, d, scale, dropout: None };
        let (expected, _) = attention::forward(&whole, &qkv);
        let p = AttentionCached { t: s, n: 2, s, a, d, scale };
        let places: Vec<[u32; 4]> = (0..s as u32).map(|position| [1, position, 9, 3]).collect();
        let (out, cache) = forward(&p, &qkv, &places, &vec![0.0; 2 * a * 2 * s * d]);
        assert!(out.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-14));
        // The last token in the other slot, its beginning in the first.
        let last = AttentionCached { t: 1, ..p };
        let row = a * 3 * d;
        let (out, _) = forward(&last, &qkv[(s - 1) * row..], &[[0, s as u32 - 1, 1, s as u32 - 1]], &cache);
        assert!(out.iter().zip(&expected[(s - 1) * a * d..]).all(|(x, y)| (x - y).abs() < 1e-14));
    }
}
