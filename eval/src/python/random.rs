//! Python's `random.Random`: the Mersenne Twister (Matsumoto & Nishimura 1998), seeded by an integer, with `sample` and `choices`.
//!
//! The harness draws its examples and its bootstraps with it; the same seed gives the same ones here.

const N: usize = 624;
const M: usize = 397;

/// `random.Random(seed)`.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u32; N],
    position: usize,
}

impl Random {
    /// The state that `random.Random(seed)` begins with: `init_by_array` of the seed's one word.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = [19_650_218u32; N];
        for i in 1..N {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = 1_812_433_253u32.wrapping_mul(previous).wrapping_add(i as u32);
        }
        let mut i = 1;
        let step = |i: &mut usize, state: &mut [u32; N]| {
            *i += 1;
            if *i == N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for _ in 0..N {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_664_525)).wrapping_add(seed);
            step(&mut i, &mut state);
        }
        for _ in 0..N - 1 {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            step(&mut i, &mut state);
        }
        state[0] = 0x8000_0000;
        Self { state, position: N }
    }

    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = (y & 1).wrapping_neg() & 0x9908_b0df;
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.position = 0;
    }

    /// The next 32 bits.
    fn bits(&mut self) -> u32 {
        if self.position == N {
            self.refill();
        }
        let mut y = self.state[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A uniform number of `0..n`: as many bits as `n` has, drawn again while too large. `n` is positive and below 2^32.
    fn below(&mut self, n: usize) -> usize {
        let n = n as u32;
        let shift = n.leading_zeros();
        loop {
            let drawn = self.bits() >> shift;
            if drawn < n {
                return drawn as usize;
            }
        }
    }

    /// A uniform number of `[0, 1)`, of 53 bits.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// An index of `choices` on a population of `n`.
    pub fn choice(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// `sample(range(n), k)`: `k` different indices of `0..n`, in the order drawn. `k` is at most `n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        assert!(k <= n, "a sample of {k} out of {n}");
        // A set is smaller than a list of n when n is above this: 21, or the power of four that is next above 3k.
        let mut small = 21;
        if k > 5 {
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            small += power;
        }
        if n <= small {
            let mut pool: Vec<usize> = (0..n).collect();
            (0..k)
                .map(|i| {
                    let j = self.below(n - i);
                    let drawn = pool[j];
                    pool[j] = pool[n - i - 1];
                    drawn
                })
                .collect()
        } else {
            let mut drawn = Vec::with_capacity(k);
            while drawn.len() < k {
                let j = self.below(n);
                if !drawn.contains(&j) {
                    drawn.push(j);
                }
            }
            drawn
        }
    }
}
