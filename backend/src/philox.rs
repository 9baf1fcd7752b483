//! Philox4x32-10, a counter-based generator (Salmon et al., SC 2011): the value at any index is computed alone, so that every layout, schedule and
//! device draws the same numbers.
//!
//! The key is the seed. The counter is (index of the block of four, stream): element `i` of a stream takes word `i % 4` of block `i / 4`. `i` is always
//! the *global* index of the element: the place it has in the uncut tensor, not in a rank's slice.
//!
//! ```
//! use backend::philox::{Stream, block};
//!
//! // The published vector for an all-zero key and counter (Random123, kat_vectors).
//! assert_eq!(block([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
//! let stream = Stream { seed: 1234, stream: 7 };
//! assert_eq!(stream.word(6), stream.block(1)[2]);
//! ```

/// Multipliers of the two rounds' halves.
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// The Weyl sequence added to the key between rounds.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32 over one counter.
#[inline(always)]
pub fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// One sequence of numbers among 2^64, each 2^64 long (2^66 words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// Which of the seed's streams.
    pub stream: u64,
}

impl Stream {
    /// Words `4 index .. 4 index + 4`.
    #[inline(always)]
    pub fn block(&self, index: u64) -> [u32; 4] {
        let halves = |n: u64| [n as u32, (n >> 32) as u32];
        let ([i0, i1], [s0, s1]) = (halves(index), halves(self.stream));
        block([i0, i1, s0, s1], halves(self.seed))
    }

    /// Word `i`.
    #[inline(always)]
    pub fn word(&self, i: u64) -> u32 {
        self.block(i / 4)[(i % 4) as usize]
    }

    /// Element `i`, uniform in (0, 1): the upper 24 bits, centred in their cell, so that neither end is met and every device rounds alike.
    pub fn uniform(&self, i: u64) -> f32 {
        unit(self.word(i))
    }

    /// Element `i`, standard normal, by Box and Muller from the two words of its pair, in f64.
    pub fn normal(&self, i: u64) -> f64 {
        let words = self.block(i / 4);
        let pair = (i % 4) as usize / 2 * 2;
        let [u, v] = [words[pair], words[pair + 1]].map(|w| (f64::from(w) + 0.5) / 4_294_967_296.0);
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        if i.is_multiple_of(2) { radius * angle.cos() } else { radius * angle.sin() }
    }
}

/// A word as a number in (0, 1).
#[inline(always)]
pub fn unit(word: u32) -> f32 {
    ((word >> 8) as f32 + 0.5) * (1.0 / 16_777_216.0)
}

/// The threshold of a dropout with probability `p`: an element is kept where its word is at least this.
pub fn drop_below(p: f32) -> u32 {
    (f64::from(p) * 4_294_967_296.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // Random123's kat_vectors for philox4x32 10.
        let ones = [u32::MAX; 4];
        assert_eq!(block(ones, [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(block(pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn normal_has_its_moments() {
        let stream = Stream { seed: 3, stream: 9 };
        let n = 200_000;
        let moments = (0..n).fold([0.0; 4], |sum, i| {
            let x = stream.normal(i);
            [sum[0] + x, sum[1] + x * x, sum[2] + x * x * x, sum[3] + x.powi(4)]
        });
        let [m1, m2, m3, m4] = moments.map(|sum| sum / n as f64);
        // Five standard errors of each moment.
        let bound = 5.0 / (n as f64).sqrt();
        assert!(m1.abs() < bound && (m2 - 1.0).abs() < bound * 2f64.sqrt(), "{m1} {m2}");
        assert!(m3.abs() < bound * 15f64.sqrt() && (m4 - 3.0).abs() < bound * 96f64.sqrt(), "{m3} {m4}");
    }

    #[test]
    fn dropout_keeps_its_share() {
        let stream = Stream { seed: 5, stream: 1 };
        let below = drop_below(0.1);
        let kept = (0..100_000).filter(|&i| stream.word(i) >= below).count();
        assert!((kept as f64 - 90_000.0).abs() < 5.0 * 9_000f64.sqrt(), "{kept}");
        assert_eq!(drop_below(0.0), 0);
    }
}
