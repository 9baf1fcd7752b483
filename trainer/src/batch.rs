//! The global batch of each step: constant, or ramped up over the first samples of a run.
//!
//! The ramp is Megatron's `--rampup-batch-size START INCREMENT SAMPLES`: the first `samples` samples are cut in as many equal parts as there are
//! increments from `start` to the full batch, and each part has its own size. A step takes the size of the part in which it *begins*, so the batch is a
//! function of one number, the samples consumed, and means the same after a checkpoint and in any layout.
//!
//! ```
//! use trainer::batch::{Batch, BatchRamp};
//! let batch = Batch::new(8, BatchRamp { start: 2, increment: 2, samples: 30 });
//! let sizes: Vec<usize> = batch.steps().map(|step| step.samples).take(12).collect();
//! assert_eq!(sizes, [2, 2, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8]);
//! assert_eq!((batch.samples_after(5), batch.steps_for(10)), (10, 5));
//! ```
//!
//! Invariants, each property-tested: sizes never fall, lie between `start` and the full batch, and are multiples of what `start` and `increment` are
//! multiples of; the closed forms [`samples_after`](Batch::samples_after) and [`steps_for`](Batch::steps_for) are the sums of the steps.

use serde::{Deserialize, Serialize};

/// The ramp before the full batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRamp {
    /// Samples of the first step.
    pub start: usize,
    /// Samples that each part has more than the one before.
    pub increment: usize,
    /// Samples until the full batch is reached; 0 for no ramp.
    pub samples: u64,
}

/// The global batch as a function of the samples consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    full: usize,
    ramp: BatchRamp,
    /// Parts of the ramp.
    parts: u64,
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// The samples consumed before it.
    pub first_sample: u64,
    /// The samples that it takes: its global batch.
    pub samples: usize,
}

/// Consecutive steps of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Samples of each step.
    pub batch: usize,
    /// The samples consumed before the first of them.
    pub first_sample: u64,
    /// How many there are; `u64::MAX` at the full batch, which has no end.
    pub steps: u64,
}

impl Batch {
    /// `full` samples a step, behind a ramp. The full batch is whole increments above the ramp's start: what is not is for the configuration to refuse,
    /// and has no ramp here.
    pub fn new(full: usize, ramp: BatchRamp) -> Self {
        let parts = match ramp.increment {
            0 => 0,
            _ if ramp.samples == 0 || ramp.start == 0 => 0,
            increment => full.saturating_sub(ramp.start) / increment,
        };
        Self { full: full.max(1), ramp, parts: parts as u64 }
    }

    /// Samples of the step that begins after `consumed` samples.
    pub fn global_batch(&self, consumed: u64) -> usize {
        if self.parts == 0 || consumed >= self.ramp.samples {
            return self.full;
        }
        // Below `parts`, and so an increment's number. Megatron divides in floating point; this is exact.
        let part = u128::from(consumed) * u128::from(self.parts) / u128::from(self.ramp.samples);
        self.ramp.start + part as usize * self.ramp.increment
    }

    /// The full batch.
    pub fn full(&self) -> usize {
        self.full
    }

    /// Samples that the ramp takes; 0 where there is none.
    pub fn ramp_samples(&self) -> u64 {
        if self.parts == 0 { 0 } else { self.ramp.samples }
    }

    /// Every step from the first, without end.
    pub fn steps(self) -> impl Iterator<Item = Step> {
        let mut first_sample = 0u64;
        (1..).map(move |number| {
            let samples = self.global_batch(first_sample);
            let step = Step { number, first_sample, samples };
            first_sample = first_sample.saturating_add(samples as u64);
            step
        })
    }

    /// The same as runs of steps of one size; the last is the full batch.
    pub fn stretches(self) -> impl Iterator<Item = Stretch> {
        let mut consumed = 0u64;
        (1..=self.parts + 1).filter_map(move |part| {
            if part > self.parts {
                return Some(Stretch { batch: self.full, first_sample: consumed, steps: u64::MAX });
            }
            let batch = self.ramp.start + (part - 1) as usize * self.ramp.increment;
            // The first sample of the next part. A step is never cut: it may reach over a small part's whole.
            let end =
                (u128::from(part) * u128::from(self.ramp.samples)).div_ceil(u128::from(self.parts)) as u64;
            let steps = end.saturating_sub(consumed).div_ceil(batch as u64);
            let stretch = Stretch { batch, first_sample: consumed, steps };
            consumed += steps * batch as u64;
            (steps > 0).then_some(stretch)
        })
    }

    /// Samples consumed by the first `steps` steps; `u64::MAX` if that is more than can be counted.
    pub fn samples_after(&self, steps: u64) -> u64 {
        let mut left = steps;
        for stretch in self.stretches() {
            if left <= stretch.steps {
                return stretch.first_sample.saturating_add(left.saturating_mul(stretch.batch as u64));
            }
            left -= stretch.steps;
        }
        unreachable!("the last stretch has no end")
    }

    /// The fewest steps that consume at least `samples`.
    pub fn steps_for(&self, samples: u64) -> u64 {
        let mut done = 0;
        for stretch in self.stretches() {
            let steps = samples.saturating_sub(stretch.first_sample).div_ceil(stretch.batch as u64);
            if steps <= stretch.steps {
                return done + steps;
            }
            done += stretch.steps;
        }
        unreachable!("the last stretch has no end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MT-NLG's: 32 to 1920 in steps of 32 over 12 B tokens of 2048 a sample.
    const MT_NLG: BatchRamp = BatchRamp { start: 32, increment: 32, samples: 5_859_375 };

    prop_compose! {
        /// A ramp whose sizes are multiples of `unit`, with parts smaller and larger than a step.
        fn ramps()(unit in 1usize..9, start in 1usize..6, increment in 1usize..5, parts in 0usize..12, samples in 0u64..3000)
            -> (usize, Batch) {
            let ramp = BatchRamp { start: unit * start, increment: unit * increment, samples };
            (unit, Batch::new(unit * (start + increment * parts), ramp))
        }
    }

    proptest! {
        #[test]
        fn sizes_rise_from_start_to_full_in_whole_units((unit, batch) in ramps()) {
            let steps: Vec<Step> = batch.steps().take(2000).collect();
            let first = if batch.ramp_samples() == 0 { batch.full() } else { batch.ramp.start };
            prop_assert_eq!(steps[0].samples, first);
            for pair in steps.windows(2) {
                prop_assert!(pair[0].samples <= pair[1].samples);
                prop_assert_eq!(pair[0].first_sample + pair[0].samples as u64, pair[1].first_sample);
            }
            for step in &steps {
                prop_assert!(step.samples.is_multiple_of(unit) && step.samples <= batch.full());
                prop_assert_eq!(step.samples == batch.full(), step.first_sample >= batch.ramp_samples());
            }
        }

        #[test]
        fn closed_forms_are_the_sums_of_the_steps((_, batch) in ramps(), count in 0usize..1500, samples in 0u64..5000) {
            let total: u64 = batch.steps().take(count).map(|step| step.samples as u64).sum();
            prop_assert_eq!(batch.samples_after(count as u64), total);
            prop_assert_eq!(batch.steps_for(total), count as u64);
            let needed = batch.steps().take_while(|step| step.first_sample < samples).count() as u64;
            prop_assert_eq!(batch.steps_for(samples), needed);
        }

        #[test]
        fn megatrons_formula(consumed in 0u64..7_000_000) {
            let batch = Batch::new(1920, MT_NLG);
            let per_increment = MT_NLG.samples as f64 / 59.0;
            let place = consumed as f64 / per_increment;
            // On the edge of a part Megatron's quotient may be rounded to either side.
            prop_assume!((place - place.round()).abs() > 1e-9);
            let expected = if consumed > MT_NLG.samples { 1920 } else { 32 + 32 * place as usize };
            prop_assert_eq!(batch.global_batch(consumed), expected);
        }
    }

    #[test]
    fn mt_nlg() {
        let batch = Batch::new(1920, MT_NLG);
        assert_eq!(MT_NLG.samples * 2048, 12_000_000_000);
        assert_eq!((batch.global_batch(0), batch.global_batch(5_859_374)), (32, 1888));
        assert_eq!(batch.global_batch(5_859_375), 1920);
        assert_eq!(batch.stretches().count(), 60);
        // Each part of 99,311 samples in steps of its own size: 99,311 / 32 x (1 + 1/2 + … + 1/59).
        let steps = batch.steps_for(MT_NLG.samples) as f64;
        let harmonic: f64 = (1..60).map(|k| 1.0 / f64::from(k)).sum();
        assert!((steps / (5_859_375.0 / 59.0 / 32.0 * harmonic) - 1.0).abs() < 2e-3, "{steps}");
    }

    #[test]
    fn no_ramp_is_constant_and_a_bad_one_never_hangs() {
        let constant = Batch::new(8, BatchRamp::default());
        assert_eq!((constant.global_batch(0), constant.samples_after(7), constant.steps_for(57)), (8, 56, 8));
        assert_eq!(constant.samples_after(u64::MAX), u64::MAX);
        assert_eq!(constant.steps_for(0), 0);
        for ramp in [
            BatchRamp { start: 0, increment: 0, samples: 9 },
            BatchRamp { start: 99, increment: 1, samples: 9 },
            BatchRamp { start: 0, increment: 8, samples: 9 },
        ] {
            assert!(Batch::new(8, ramp).steps().take(100).last().unwrap().samples <= 8);
            let _ = Batch::new(0, ramp).steps_for(100);
        }
    }
}
