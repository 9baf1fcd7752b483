//! NumPy's legacy `RandomState`, as far as Megatron's sample order draws from it: seeding and `shuffle`.
//!
//! The generator is MT19937 (Matsumoto & Nishimura 1998) seeded by `init_genrand`. NumPy freezes this stream by policy (NEP 19), so the
//! order of a run prepared with Megatron can be repeated here, sample for sample.

const N: usize = 624;
const M: usize = 397;

/// `numpy.random.RandomState(seed)`.
#[derive(Clone)]
pub struct RandomState {
    key: [u32; N],
    position: usize,
}

impl RandomState {
    /// The state that `numpy.random.RandomState(seed)` starts from.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut key = [seed; N];
        for i in 1..N {
            let previous = key[i - 1];
            key[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        RandomState { key, position: N }
    }

    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.key[i] & 0x8000_0000) | (self.key[(i + 1) % N] & 0x7fff_ffff);
            let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.key[i] = self.key[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.position = 0;
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.position == N {
            self.refill();
        }
        let mut y = self.key[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A uniform integer in `0..=max`: masked to the bits of `max`, drawn again while too large.
    pub fn interval(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `RandomState.shuffle`: Fisher–Yates from the last element down.
    ///
    /// # Panics
    /// If the slice has more than 2^32 elements; callers bound it.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let max = u32::try_from(i).expect("a shuffle of at most 2^32 elements");
            items.swap(i, self.interval(max) as usize);
        }
    }
}

impl std::fmt::Debug for RandomState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RandomState").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousandth_output_of_the_reference_seed() {
        // mt19937 of the C++ standard ([rand.predef]): seed 5489, the 10000th value.
        let mut rng = RandomState::new(5489);
        let last = (0..10_000).map(|_| rng.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn interval_stays_inside() {
        let mut rng = RandomState::new(1);
        for max in [0, 1, 2, 3, 7, 8, 1000, u32::MAX] {
            assert!((0..100).all(|_| rng.interval(max) <= max));
        }
    }

    #[test]
    fn shuffling_little_is_no_draw() {
        let mut rng = RandomState::new(7);
        rng.shuffle::<u8>(&mut []);
        rng.shuffle(&mut [1]);
        assert_eq!(rng.next_u32(), RandomState::new(7).next_u32());
    }
}
