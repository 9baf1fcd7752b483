//! A vector times a matrix whose lines lie in one piece, on processors with AVX2: one token's products in a decoding step.
//!
//! A lane is a line of the matrix, as [`chains`](crate::chains) would have it if the matrix were laid out term by term. Here eight terms of eight lines are
//! turned in registers on their way from memory, so that the weights are read about as fast as memory gives them.

/// Lines that are taken at a time.
pub(crate) const LINES: usize = 16;

/// Lines of a matrix, each in one piece, and where the product with each is written.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) start: *const f32,
    /// A multiple of [`LINES`].
    pub(crate) lines: usize,
    /// From a line to the next.
    pub(crate) stride: usize,
    pub(crate) results: *mut f32,
    /// From a result to the next.
    pub(crate) apart: usize,
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{available, product};

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn available() -> bool {
    false
}

/// Never called: it is not [`available`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn product(_: &[f32], _: usize, _: Matrix, _: f32, _: bool) {
    unreachable!("asked for without being available")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINES, Matrix};

    /// Lanes of a vector, and terms that are turned at a time.
    const LANES: usize = 8;

    /// Floats of a cache line.
    const CACHE_LINE: usize = 16;

    /// Whether this processor has what [`product`] is made of.
    pub(crate) fn available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    /// Each line's product with the vector times `alpha`, added to the result where `add`: in chains of `depth` terms.
    ///
    /// # Safety
    /// The lines have as many terms as the vector; nobody writes them, or reads or writes the results; and it is [`available`].
    #[target_feature(enable = "avx2,fma")]
    pub(crate) unsafe fn product(vector: &[f32], depth: usize, matrix: Matrix, alpha: f32, add: bool) {
        let Matrix { stride, results, apart, .. } = matrix;
        for first in (0..matrix.lines).step_by(LINES) {
            let start = matrix.start.wrapping_add(first * stride);
            for (index, terms) in vector.chunks(depth).enumerate() {
                let begin = index * depth;
                // What follows these lines in memory: the next ones, where they lie behind one another.
                let ahead = start.wrapping_add(LINES * (stride + begin));
                // SAFETY: lines and terms that there are.
                let sums = unsafe { chain(start.add(begin), stride, terms, ahead) };
                for (i, sum) in sums.into_iter().enumerate() {
                    // SAFETY: the caller's word.
                    let result = unsafe { &mut *results.add((first + i) * apart) };
                    *result = if add || index > 0 { sum.mul_add(alpha, *result) } else { sum * alpha };
                }
            }
        }
    }

    /// The sums of `vector[p] line[p]` over `p` in order, by fused multiply-adds, for [`LINES`] lines from `start` on. Meanwhile as many floats are fetched from
    /// `ahead` on, in the order of memory, whether there are any or not.
    ///
    /// # Safety
    /// The lines are there with as many terms as the vector has, and nobody writes them.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn chain(start: *const f32, stride: usize, vector: &[f32], ahead: *const f32) -> [f32; LINES] {
        let whole = vector.len() / LANES * LANES;
        let mut sums = [_mm256_setzero_ps(); LINES / LANES];
        for p in (0..whole).step_by(LANES) {
            for i in (0..LINES * LANES).step_by(CACHE_LINE) {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * LINES + i).cast());
            }
            for (group, sum) in sums.iter_mut().enumerate() {
                for half in 0..2 {
                    let p = p + half * LANES / 2;
                    // SAFETY: four terms of eight lines that there are.
                    let terms = unsafe { turned(start.add(group * LANES * stride + p), stride) };
                    for (i, term) in terms.into_iter().enumerate() {
                        *sum = _mm256_fmadd_ps(_mm256_set1_ps(vector[p + i]), term, *sum);
                    }
                }
            }
        }
        let mut result = [0.0; LINES];
        for (sum, result) in sums.into_iter().zip(result.chunks_exact_mut(LANES)) {
            // SAFETY: eight elements.
            unsafe { _mm256_storeu_ps(result.as_mut_ptr(), sum) };
        }
        for (p, x) in vector.iter().enumerate().skip(whole) {
            for (i, sum) in result.iter_mut().enumerate() {
                // SAFETY: within the lines.
                *sum = x.mul_add(unsafe { *start.add(i * stride + p) }, *sum);
            }
        }
        result
    }

    /// Four terms of eight lines: a vector for each term.
    ///
    /// # Safety
    /// They are there.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn turned(start: *const f32, stride: usize) -> [__m256; LANES / 2] {
        let pair = |i: usize| {
            // SAFETY: lines `i` and `i + 4` of the caller's.
            let [low, high] = [i, i + 4].map(|i| unsafe { _mm_loadu_ps(start.add(i * stride)) });
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        let [a, b, c, d] = [pair(0), pair(1), pair(2), pair(3)];
        let [ab, cd] = [[a, b], [c, d]]
            .map(|[x, y]| [_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y)].map(|x| _mm256_castps_pd(x)));
        let two = |i: usize| [_mm256_unpacklo_pd(ab[i], cd[i]), _mm256_unpackhi_pd(ab[i], cd[i])];
        let ([first, second], [third, fourth]) = (two(0), two(1));
        [first, second, third, fourth].map(|x| _mm256_castpd_ps(x))
    }
}
