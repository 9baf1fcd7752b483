//! The learning rate of a step: linear warm-up, then a cosine down to a fraction of the peak (MT-NLG, section 3.2).

/// The schedule's four numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// Peak, reached by the last step of the warm-up.
    pub peak: f64,
    /// Where the cosine ends, as a fraction of the peak.
    pub min_ratio: f64,
    /// Steps of the warm-up; 0 for none.
    pub warmup_steps: u64,
    /// The step at which the cosine ends, usually the last of the run.
    pub decay_steps: u64,
}

impl LearningRate {
    /// The rate of step `step`, which counts from 1: `peak * step / warmup_steps` in the warm-up, then
    /// `min + (peak - min) * (1 + cos(pi t)) / 2` with `t` from 0 at the end of the warm-up to 1 at step `decay_steps`; `min` beyond it.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup_steps && self.warmup_steps > 0 {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let min = self.peak * self.min_ratio;
        if step >= self.decay_steps {
            return min;
        }
        let t = (step - self.warmup_steps) as f64 / (self.decay_steps - self.warmup_steps) as f64;
        min + (self.peak - min) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LR: LearningRate =
        LearningRate { peak: 5e-3, min_ratio: 0.1, warmup_steps: 100, decay_steps: 1100 };

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
        for step in 1..1100 {
            let rises = LR.at(step) < LR.at(step + 1);
            assert_eq!(rises, step < 100, "step {step}");
        }
    }

    #[test]
    fn no_warm_up_starts_near_the_peak() {
        let lr = LearningRate { warmup_steps: 0, ..LR };
        assert!(lr.at(1) < 5e-3 && lr.at(1) > 4.99e-3);
        assert_eq!(lr.at(1100), 5e-4);
    }

    #[test]
    fn a_run_of_warm_up_alone_never_divides_by_zero() {
        let lr = LearningRate { warmup_steps: 10, decay_steps: 10, ..LR };
        assert_eq!(lr.at(10), 5e-3);
        assert_eq!(lr.at(11), 5e-4);
    }
}
