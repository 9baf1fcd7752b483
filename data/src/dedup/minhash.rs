//! Shingles, their MinHash signature, and the similarity that it stands for.

use crate::words::{mix, ngram_hash, words};

/// The set of a text's shingles of `n` words, each as 32 bits, in ascending order. A text of fewer words is one shingle; one without words has none.
#[must_use]
pub fn shingles(text: &str, n: usize) -> Vec<u32> {
    let words: Vec<u64> = words(text).map(|word| word.hash).collect();
    let fold = |hash: u64| (hash ^ (hash >> 32)) as u32;
    let mut shingles: Vec<u32> = match words.len() {
        0 => Vec::new(),
        short if short < n => vec![fold(ngram_hash(&words))],
        _ => words.windows(n).map(|words| fold(ngram_hash(words))).collect(),
    };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// The Jaccard similarity of two ascending sets: shared over all; 0 where one is empty.
#[must_use]
pub fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut shared) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        shared += usize::from(a[i] == b[j]);
        let (left, right) = (a[i], b[j]);
        i += usize::from(left <= right);
        j += usize::from(right <= left);
    }
    shared as f64 / (a.len() + b.len() - shared).max(1) as f64
}

/// The hash functions: `h_k(x) = a_k x + b_k mod 2^32`, `a_k` odd: permutations of the shingles, which are well mixed already.
#[derive(Debug, Clone)]
pub struct MinHasher {
    factors: Vec<u32>,
    terms: Vec<u32>,
    rows: usize,
}

impl MinHasher {
    /// `bands * rows` functions, the same ones always.
    #[must_use]
    pub fn new(bands: usize, rows: usize) -> Self {
        let draw = |k: usize, stream: u64| mix(k as u64 + 1, stream) as u32;
        let hashes = 0..bands * rows;
        MinHasher {
            factors: hashes.clone().map(|k| draw(k, 1) | 1).collect(),
            terms: hashes.map(|k| draw(k, 2)).collect(),
            rows,
        }
    }

    /// The least value of each function over the shingles.
    #[must_use]
    pub fn signature(&self, shingles: &[u32]) -> Vec<u32> {
        let mut least = vec![u32::MAX; self.factors.len()];
        // Compiled for the vector units that the processor has, chosen as it runs.
        pulp::Arch::new().dispatch(|| {
            for block in shingles.chunks(8) {
                for ((least, &factor), &term) in least.iter_mut().zip(&self.factors).zip(&self.terms) {
                    let mut value = *least;
                    for &shingle in block {
                        value = value.min(factor.wrapping_mul(shingle).wrapping_add(term));
                    }
                    *least = value;
                }
            }
        });
        least
    }

    /// A hash of each band of the signature; none for a text without shingles.
    #[must_use]
    pub fn bands(&self, shingles: &[u32]) -> Vec<u64> {
        if shingles.is_empty() {
            return Vec::new();
        }
        let signature = self.signature(shingles);
        let bands = signature.chunks(self.rows);
        bands.map(|band| band.iter().fold(0, |hash, &value| mix(hash, u64::from(value)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sets() {
        assert_eq!(shingles("a b", 5).len(), 1);
        assert_eq!(shingles("A, b!", 5), shingles("a b", 5));
        assert_eq!(shingles("a b c d e f", 5).len(), 2);
        assert!(shingles(" ... ", 5).is_empty());
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[], &[]), 0.0);
        assert_eq!(jaccard(&[1, 5], &[1, 5]), 1.0);
    }

    #[test]
    fn signatures_estimate_the_similarity() {
        // Equal positions are a fraction with the similarity as its mean: over 2600 hashes a deviation of 0.05 is five sigma.
        let hasher = MinHasher::new(200, 13);
        for shared in [0usize, 300, 600, 900, 990] {
            let set = |own: u64| -> Vec<u32> {
                let private = (0..1000 - shared as u64).map(|i| mix(i + 1, own) as u32);
                let mut set: Vec<u32> =
                    (0..shared as u64).map(|i| mix(i + 1, 9) as u32).chain(private).collect();
                set.sort_unstable();
                set
            };
            let (a, b) = (set(1), set(2));
            let (x, y) = (hasher.signature(&a), hasher.signature(&b));
            let equal = x.iter().zip(&y).filter(|(x, y)| x == y).count() as f64 / x.len() as f64;
            assert!((equal - jaccard(&a, &b)).abs() < 0.05, "{shared}: {equal} for {}", jaccard(&a, &b));
        }
    }
}
