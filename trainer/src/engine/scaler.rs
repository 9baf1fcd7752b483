//! The dynamic loss scale that keeps f16's small gradients from vanishing (Micikevicius et al. 2018, section 3.2; Megatron-LM's rules).

use crate::options::LossScale;

/// The scale of the loss, and what it has seen.
///
/// Every overflow counts against the hysteresis; when it is used up the scale is halved. `window` steps without an overflow double the scale and restore the
/// hysteresis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaler {
    settings: LossScale,
    scale: f32,
    good_steps: u32,
    overflows_left: u32,
}

impl LossScaler {
    /// The initial scale.
    pub fn new(settings: LossScale) -> Self {
        Self { settings, scale: settings.initial, good_steps: 0, overflows_left: settings.hysteresis }
    }

    /// What the loss is multiplied with before its backward.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// What it has seen, to be saved: scale, steps without an overflow, overflows left.
    pub fn state(&self) -> (f32, u32, u32) {
        (self.scale, self.good_steps, self.overflows_left)
    }

    /// Goes on from a saved [`state`](Self::state).
    pub fn restore(&mut self, (scale, good_steps, overflows_left): (f32, u32, u32)) {
        (self.scale, self.good_steps, self.overflows_left) = (scale, good_steps, overflows_left);
    }

    /// Takes note of a step; `finite` says whether all of its gradients were.
    pub fn update(&mut self, finite: bool) {
        let LossScale { min, window, hysteresis, .. } = self.settings;
        if finite {
            self.good_steps += 1;
            if self.good_steps == window {
                self.good_steps = 0;
                self.overflows_left = hysteresis;
                self.scale *= 2.0;
            }
            return;
        }
        self.good_steps = 0;
        self.overflows_left = self.overflows_left.saturating_sub(1);
        if self.overflows_left == 0 {
            self.scale = (self.scale / 2.0).max(min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_beyond_the_hysteresis_halve_and_a_window_of_good_steps_doubles() {
        let settings = LossScale { initial: 16.0, min: 2.0, window: 3, hysteresis: 2 };
        let mut scaler = LossScaler::new(settings);
        let mut after = |finite: bool| {
            scaler.update(finite);
            scaler.scale()
        };
        // Two overflows in all, not in a row, until the first halving; then every one halves (Megatron's rule) until a window has passed.
        assert_eq!([false, true, false, false].map(&mut after), [16.0, 16.0, 8.0, 4.0]);
        assert_eq!([true, true, true].map(&mut after), [4.0, 4.0, 8.0]);
        assert_eq!([false, false, false, false, false].map(&mut after), [8.0, 4.0, 2.0, 2.0, 2.0]);
    }
}
