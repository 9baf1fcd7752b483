//! The weighted blend of data sets: which set, and which of its samples, is the global sample `i`.
//!
//! Greedy, as Megatron-LM does it: sample `i` comes from the set that lags furthest behind its share, `argmax_d w_d max(i, 1) - taken_d`, ties
//! to the lowest `d`. At every prefix of the run each set has been drawn in proportion to its weight, to within a few samples.

use crate::{Error, Result, aside};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Surplus of samples prepared for each set over its share, as Megatron's `mid_level_dataset_surplus`.
const SURPLUS: f64 = 0.005;

/// For every global sample its set and the index in that set's own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blend {
    set: Vec<u16>,
    index: Vec<u32>,
    taken: Vec<u64>,
}

impl Blend {
    /// `samples` drawn from sets in proportion to `weights`, which need not sum to 1.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for no weight, 32,767 or more of them, a weight that is not positive and finite, or 2^32 samples or more.
    pub fn weighted(weights: &[f64], samples: u64) -> Result<Self> {
        let weights = normalize(weights)?;
        Self::greedy(&weights, samples, |_, _| true)
    }

    /// Every sample of every set once, spread evenly: set `d` has `sizes[d]` samples and is left out once they are taken.
    ///
    /// # Errors
    /// As [`Blend::weighted`]; sizes of 0 are no error.
    pub fn exhaustive(sizes: &[u64]) -> Result<Self> {
        let total: u64 = sizes.iter().sum();
        let shares: Vec<f64> = sizes.iter().map(|&size| size as f64 / (total as f64).max(1.0)).collect();
        Self::greedy(&shares, total, |d, taken| taken < sizes[d])
    }

    fn greedy(shares: &[f64], samples: u64, available: impl Fn(usize, u64) -> bool) -> Result<Self> {
        check_sets(shares.len())?;
        if samples > u64::from(u32::MAX) {
            let (value, expected) = (samples.to_string(), "at most 2^32 - 1".to_owned());
            return Err(Error::OutOfRange { name: "samples of the blend", value, expected });
        }
        let mut set = Vec::with_capacity(samples as usize);
        let mut index = Vec::with_capacity(samples as usize);
        let mut taken = vec![0u64; shares.len()];
        for i in 0..samples {
            let due = i.max(1) as f64;
            let mut best = (0, f64::NEG_INFINITY);
            for (d, share) in shares.iter().enumerate() {
                let lag = share * due - taken[d] as f64;
                if lag > best.1 && available(d, taken[d]) {
                    best = (d, lag);
                }
            }
            let d = best.0;
            set.push(d as u16);
            index.push(taken[d] as u32);
            taken[d] += 1;
        }
        Ok(Blend { set, index, taken })
    }

    /// Samples in the blend.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// (set, index in the set) of global sample `i`; `None` past the end.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<(usize, usize)> {
        Some((usize::from(*self.set.get(i)?), self.index[i] as usize))
    }

    /// Write the indices as Megatron caches them: `prefix.dataset_index.npy` (i16) and `prefix.dataset_sample_index.npy` (i64).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_npy(&self, prefix: &Path) -> Result<()> {
        let named = |suffix: &str| {
            let mut name = prefix.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        };
        let set = self.set.iter().flat_map(|&set| (set as i16).to_le_bytes());
        let index = self.index.iter().flat_map(|&index| i64::from(index).to_le_bytes());
        write_npy(&named(".dataset_index.npy"), "<i2", self.len(), set)?;
        write_npy(&named(".dataset_sample_index.npy"), "<i8", self.len(), index)
    }

    /// Samples taken from each set.
    #[must_use]
    pub fn taken(&self) -> &[u64] {
        &self.taken
    }
}

/// A one-dimensional array in NumPy's format 1.0.
fn write_npy(path: &Path, dtype: &str, len: usize, bytes: impl Iterator<Item = u8>) -> Result<()> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({len},), }}");
    // Magic, version, length and header fill blocks of 64 bytes.
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = BufWriter::with_capacity(1 << 20, aside::temporary(path)?);
    let failed = |error| Error::io("write", path)(error);
    file.write_all(b"\x93NUMPY\x01\x00").map_err(failed)?;
    file.write_all(&(header.len() as u16).to_le_bytes()).map_err(failed)?;
    file.write_all(header.as_bytes()).map_err(failed)?;
    for byte in bytes {
        file.write_all(&[byte]).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    aside::publish(file, path)
}

/// Weights that sum to 1, in Megatron's (that is, NumPy's) rounding.
///
/// # Errors
/// [`Error::OutOfRange`] for no weight, 32,767 or more of them, or one that is not positive and finite.
pub fn normalize(weights: &[f64]) -> Result<Vec<f64>> {
    check_sets(weights.len())?;
    let sum = pairwise_sum(weights);
    match weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        None if sum.is_finite() => Ok(weights.iter().map(|weight| weight / sum).collect()),
        bad => Err(Error::OutOfRange {
            name: "weight of a set",
            value: bad.copied().unwrap_or(sum).to_string(),
            expected: "a positive, finite number".to_owned(),
        }),
    }
}

/// Samples to prepare of a set with normalized weight `weight` when the blend has `samples`: `ceil(ceil(samples w) 1.005)`.
#[must_use]
pub fn samples_for(samples: u64, weight: f64) -> u64 {
    ((samples as f64 * weight).ceil() * (1.0 + SURPLUS)).ceil() as u64
}

fn check_sets(sets: usize) -> Result<()> {
    // Megatron's bound: the set's number is stored in 16 bits with a sign.
    if (1..32_767).contains(&sets) {
        return Ok(());
    }
    let (value, expected) = (sets.to_string(), "1 to 32766".to_owned());
    Err(Error::OutOfRange { name: "number of sets in the blend", value, expected })
}

/// NumPy's sum of contiguous float64: eight running sums up to 128 terms, halves above.
fn pairwise_sum(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 8 {
        return values.iter().fold(0.0, |sum, value| sum + value);
    }
    if n <= 128 {
        let (chunks, rest) = values.as_chunks::<8>();
        let mut r = chunks[0];
        for chunk in &chunks[1..] {
            for (sum, value) in r.iter_mut().zip(chunk) {
                *sum += value;
            }
        }
        let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        return rest.iter().fold(sum, |sum, value| sum + value);
    }
    let half = n / 2 - (n / 2) % 8;
    pairwise_sum(&values[..half]) + pairwise_sum(&values[half..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_samples_by_hand() {
        // Dues of set 0 are 0.5, 0.5, 1, 1.5, 2, …: i = 0 counts as 1, so set 0 waits two turns after the first; ties go to the lowest set.
        let blend = Blend::weighted(&[0.5, 0.25, 0.25], 8).unwrap();
        assert_eq!(blend.set, [0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(blend.index, [0, 0, 0, 1, 2, 1, 1, 3]);
        assert_eq!(blend.taken(), [4, 2, 2]);
        assert_eq!(blend.get(7), Some((0, 3)));
        assert_eq!(blend.get(8), None);
    }

    #[test]
    fn mistakes() {
        for weights in
            [&[][..], &[1.0, 0.0], &[1.0, -1.0], &[f64::NAN], &[f64::INFINITY], &[f64::MAX, f64::MAX]]
        {
            assert!(Blend::weighted(weights, 3).is_err(), "{weights:?}");
        }
        assert!(Blend::weighted(&vec![1.0; 40_000], 3).is_err());
        assert!(Blend::weighted(&[1.0], 1 << 32).is_err());
    }

    proptest! {
        #[test]
        fn fractions_follow_the_weights(weights in prop::collection::vec(0.001f64..10.0, 1..12), n in 0u64..3000) {
            let blend = Blend::weighted(&weights, n).unwrap();
            let shares = normalize(&weights).unwrap();
            let mut taken = vec![0u64; weights.len()];
            for i in 0..n as usize {
                let (set, index) = blend.get(i).unwrap();
                prop_assert_eq!(index as u64, taken[set]);
                taken[set] += 1;
                for d in 0..weights.len() {
                    let due = shares[d] * (i + 1) as f64;
                    prop_assert!((taken[d] as f64 - due).abs() < weights.len() as f64, "set {} of {:?} at {}", d, weights, i);
                }
            }
            prop_assert_eq!(&taken[..], blend.taken());
        }

        #[test]
        fn exhaustive_takes_everything_once(sizes in prop::collection::vec(0u64..200, 1..8)) {
            let blend = Blend::exhaustive(&sizes).unwrap();
            prop_assert_eq!(blend.taken(), &sizes[..]);
        }
    }
}
