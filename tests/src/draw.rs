//! Operands of a case: drawn by its id, so that a case is the same wherever and in whatever order it runs.

use backend::DType;
use backend::philox::Stream;

use crate::narrow::rounded;

/// A sequence of draws.
pub struct Draw {
    stream: Stream,
    next: u64,
    dtype: DType,
}

impl Draw {
    /// The draws of the case with that id.
    pub fn new(id: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { stream: Stream { seed: hash, stream: 0 }, next: 0, dtype: DType::F32 }
    }

    /// The same draws for a case whose values are of that type.
    pub fn of(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// As [`normal`](Self::normal), rounded to the type of the case's values.
    pub fn values(&mut self, n: usize, mean: f64, std: f64) -> Vec<f32> {
        let drawn = self.normal(n, mean, std);
        rounded(self.dtype, &drawn)
    }

    /// The next `n` indices.
    fn take(&mut self, n: usize) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += n as u64;
        first..self.next
    }

    /// `n` normal numbers of that mean and standard deviation.
    pub fn normal(&mut self, n: usize, mean: f64, std: f64) -> Vec<f32> {
        self.take(n).map(|i| (mean + std * self.stream.normal(i)) as f32).collect()
    }

    /// `n` integers from `low` to `high`, both included.
    pub fn integers(&mut self, n: usize, low: i64, high: i64) -> Vec<i64> {
        let span = (high - low + 1) as u64;
        self.take(n).map(|i| low + ((u64::from(self.stream.word(i)) * span) >> 32) as i64).collect()
    }

    /// `n` integers from `low` to `high` as f32.
    pub fn whole(&mut self, n: usize, low: i64, high: i64) -> Vec<f32> {
        self.integers(n, low, high).into_iter().map(|i| i as f32).collect()
    }

    /// `n` tokens of `range`.
    pub fn tokens(&mut self, n: usize, range: std::ops::Range<usize>) -> Vec<u32> {
        self.integers(n, range.start as i64, range.end as i64 - 1).into_iter().map(|i| i as u32).collect()
    }
}
