//! How the next token is drawn from the logits.

use backend::philox::Stream;

/// Philox streams of the draws: apart from those of initial weights and dropout.
const STREAM: u64 = 1 << 62;

/// How the next token is drawn.
///
/// In this order: the repetition penalty, the temperature, the `top_k` most likely, of those the fewest that make up `top_p` of the probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the so many most likely tokens are drawn from; 0 for all.
    pub top_k: usize,
    /// Only the fewest tokens that have this much of the probability together (Holtzman et al. 2020); 1 for all.
    pub top_p: f64,
    /// Divides positive logits of tokens that are there already, and multiplies negative ones (Keskar et al. 2019, section 4.1); 1 leaves them.
    pub repetition_penalty: f64,
    /// Seed of the draws: token `position` of prompt `index` is a function of seed, index, position and logits.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The next token of a sequence, which goes to `position` in prompt number `index`; of equal logits the lower token is taken for the likelier.
    pub fn draw(&self, logits: &[f32], sequence: &[u32], index: u64, position: usize) -> u32 {
        let mut penalised: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
        if self.repetition_penalty != 1.0 {
            let mut seen = vec![false; logits.len()];
            for &token in sequence {
                let token = token as usize;
                if token < seen.len() && !std::mem::replace(&mut seen[token], true) {
                    let logit = &mut penalised[token];
                    *logit = if *logit > 0.0 {
                        *logit / self.repetition_penalty
                    } else {
                        *logit * self.repetition_penalty
                    };
                }
            }
        }
        let uniform = Stream { seed: self.seed, stream: STREAM + index }.uniform(position as u64);
        self.choose(&penalised, uniform)
    }

    /// The token at the point `uniform` of the distribution.
    fn choose(&self, logits: &[f64], uniform: f32) -> u32 {
        let likelier = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if self.temperature <= 0.0 {
            return order.into_iter().min_by(likelier).unwrap_or(0) as u32;
        }
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, likelier);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(likelier);
        let top = order.first().map_or(0.0, |&first| logits[first]);
        let weights: Vec<f64> = order.iter().map(|&i| ((logits[i] - top) / self.temperature).exp()).collect();
        let mut total: f64 = weights.iter().sum();
        let mut count = order.len();
        if self.top_p < 1.0 {
            let (mut sum, wanted) = (0.0, self.top_p * total);
            count = weights
                .iter()
                .take_while(|&&weight| {
                    let more = sum < wanted;
                    sum += weight;
                    more
                })
                .count()
                .max(1);
            total = weights[..count].iter().sum();
        }
        let mut left = f64::from(uniform) * total;
        for (token, weight) in order[..count].iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *token as u32;
            }
        }
        order[count - 1] as u32
    }
}

/// `ln sum exp` of logits: what is taken off a logit to make it a log-probability.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(sampling: Sampling, logits: &[f64]) -> Vec<u32> {
        (0..1000).map(|i| sampling.choose(logits, i as f32 / 1000.0)).collect()
    }

    #[test]
    fn a_choice_follows_the_distribution() {
        // Probabilities 1/8, 1/2, 1/8, 1/4.
        let logits: Vec<f64> = [1.0_f64, 4.0, 1.0, 2.0].map(f64::ln).to_vec();
        let all = choices(Sampling::default(), &logits);
        let count = |token: u32, of: &[u32]| of.iter().filter(|&&t| t == token).count();
        assert_eq!([0, 1, 2, 3].map(|token| count(token, &all)), [125, 500, 125, 250]);
        assert_eq!(count(1, &choices(Sampling::greedy(), &logits)), 1000);
        // Twice the temperature takes the square root of the weights: 1, 2, 1, sqrt 2.
        let warm = choices(Sampling { temperature: 2.0, ..Sampling::default() }, &logits);
        assert!(count(1, &warm).abs_diff((2000.0 / (4.0 + 2.0_f64.sqrt())) as usize) <= 1);
        // Of equal ones the lower token.
        let three = choices(Sampling { top_k: 3, ..Sampling::default() }, &logits);
        assert!(count(2, &three) == 0 && count(0, &three).abs_diff(1000 / 7) <= 1);
        // The fewest with 0.6: 1/2 and 1/4; with exactly 1/2 the first alone.
        let some = choices(Sampling { top_p: 0.6, ..Sampling::default() }, &logits);
        assert!(count(1, &some).abs_diff(667) <= 1 && count(1, &some) + count(3, &some) == 1000);
        assert_eq!(count(1, &choices(Sampling { top_p: 0.5, ..Sampling::default() }, &logits)), 1000);
    }

    #[test]
    fn what_is_there_already_is_penalised_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(sampling.draw(&[3.0, 2.0, -1.0], &[], 0, 0), 0);
        assert_eq!(sampling.draw(&[3.0, 2.0, -1.0], &[0, 0], 0, 2), 1);
        assert_eq!(sampling.draw(&[-3.0, -2.0, -2.5], &[1, 9], 0, 2), 2);
    }

    #[test]
    fn a_draw_is_a_function_of_its_place() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
        let sampling = Sampling { seed: 5, ..Sampling::default() };
        let draws =
            |index: u64| -> Vec<u32> { (0..40).map(|p| sampling.draw(&logits, &[], index, p)).collect() };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits = [1.0e4_f32, 9_999.0, 1.0];
        let total = log_sum_exp(&logits);
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - total).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
