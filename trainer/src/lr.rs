//! The learning rate of a step: linear warm-up, then a cosine down to a fraction of the peak (MT-NLG, section 3.2).
//!
//! It is a function of the tokens consumed, not of the step's number, so that it means the same with any batch size and along a batch ramp.

/// The schedule's four numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// Peak, reached by the last step of the warm-up.
    pub peak: f64,
    /// Where the cosine ends, as a fraction of the peak.
    pub min_ratio: f64,
    /// Tokens of the warm-up; 0 for none.
    pub warmup_tokens: u64,
    /// The tokens at which the cosine ends, often the run's last.
    pub decay_tokens: u64,
}

impl LearningRate {
    /// The rate of the step that brings the tokens consumed to `tokens`, its own included: `peak * tokens / warmup_tokens` in the warm-up, then
    /// `min + (peak - min) * (1 + cos(pi t)) / 2` with `t` from 0 at the end of the warm-up to 1 at `decay_tokens`; `min` beyond it.
    ///
    /// Both quotients are taken of whole numbers: steps of any size that end at the same share of the schedule have the same bits.
    pub fn at(&self, tokens: u64) -> f64 {
        if tokens < self.warmup_tokens {
            return self.peak * (tokens as f64 / self.warmup_tokens as f64);
        }
        let min = self.peak * self.min_ratio;
        if tokens > self.warmup_tokens && tokens >= self.decay_tokens {
            return min;
        }
        if tokens == self.warmup_tokens {
            return self.peak;
        }
        let t = (tokens - self.warmup_tokens) as f64 / (self.decay_tokens - self.warmup_tokens) as f64;
        min + (self.peak - min) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LR: LearningRate =
        LearningRate { peak: 5e-3, min_ratio: 0.1, warmup_tokens: 100, decay_tokens: 1100 };

    #[test]
    fn ends_are_exact() {
        assert_eq!(LR.at(0), 0.0);
        assert_eq!(LR.at(1), 5e-3 / 100.0);
        assert_eq!(LR.at(50), 2.5e-3);
        assert_eq!(LR.at(100), 5e-3);
        assert_eq!(LR.at(1100), 5e-4);
        assert_eq!(LR.at(u64::MAX), 5e-4);
    }

    #[test]
    fn half_way_down_is_the_mean_of_peak_and_minimum() {
        assert!((LR.at(600) - 0.5 * (5e-3 + 5e-4)).abs() < 1e-17);
    }

    #[test]
    fn rises_then_falls() {
        for tokens in 1..1100 {
            let rises = LR.at(tokens) < LR.at(tokens + 1);
            assert_eq!(rises, tokens < 100, "token {tokens}");
        }
    }

    #[test]
    fn no_warm_up_starts_near_the_peak() {
        let lr = LearningRate { warmup_tokens: 0, ..LR };
        assert!(lr.at(1) < 5e-3 && lr.at(1) > 4.99e-3);
        assert_eq!(lr.at(1100), 5e-4);
    }

    #[test]
    fn a_run_of_warm_up_alone_never_divides_by_zero() {
        let lr = LearningRate { warmup_tokens: 10, decay_tokens: 10, ..LR };
        assert_eq!(lr.at(10), 5e-3);
        assert_eq!(lr.at(11), 5e-4);
    }

    proptest! {
        /// The same schedule in units of any number of tokens: a run with a batch twice as large has the rates of every second step.
        #[test]
        fn the_batch_size_does_not_show(step in 0u64..2000, size in 1u64..4_000_000) {
            let scaled =
                LearningRate { warmup_tokens: LR.warmup_tokens * size, decay_tokens: LR.decay_tokens * size, ..LR };
            prop_assert_eq!(scaled.at(step * size).to_bits(), LR.at(step).to_bits());
        }
    }
}
