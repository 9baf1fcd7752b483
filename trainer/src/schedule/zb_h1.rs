//! ZB-H1 (Qi et al., arXiv 2401.10241, section 2.1): 1F1B whose weight gradients wait.
//!
//! Nobody waits for a gradient of weights but the step at the end, while the stage before waits for the gradient of the input. So the backward is cut in
//! two: the input's gradient runs where 1F1B has its backward, and is sent on at once; the weights' follows `r` microbatches later on stage `r`, the last
//! `r` of them at the end, where 1F1B would be idle.
//!
//! *Activations.* They are held until the weights' gradient is done. Stage `r` has warmed up with `p - r - 1` microbatches, runs one more, and lags `r`
//! behind: `p` in all on every stage (`min(p, m)`), which is what the first stage of 1F1B holds. It owes at most `min(r + 1, m)` weight gradients.
//!
//! *Bubble.* Follow the last stage. Its first input comes after `(p - 1) T_F`. Until its last input gradient it runs `m` forwards, `m` input gradients, and
//! the weight gradients that it does not put off: all but the last `min(p, m)`. That last gradient goes back through `p - 1` stages, `(p - 1) T_B`, and
//! the first stage, which puts off nothing, ends with one `T_W`. In sum
//!
//! ```text
//! m (T_F + T_B + T_W) + (p - 1) (T_F + T_B) - (min(p, m) - 1) T_W
//! ```
//!
//! In this order no costs make it less. With `m >= p` the bubble is `(p - 1)(T_F + T_B - T_W)`; fewer microbatches have fewer weight gradients to fill
//! it with. The schedule takes exactly this long if `T_W <= T_F` and `T_W <= T_B`, as in a transformer, where attention has no weights; a weight gradient
//! that is longer than the gap that it fills holds up what comes behind it.

use super::one_f_one_b::{alternate, warm_up};
use super::{Instruction, Unit};

/// The work of a stage.
pub(super) fn work(stages: usize, microbatches: usize, stage: usize) -> Vec<Instruction> {
    let unit = |microbatch| Unit { chunk: 0, microbatch };
    let weight = |microbatch| Instruction::BackwardWeight(unit(microbatch));
    let backward = |microbatch: usize| {
        let late = microbatch.checked_sub(stage).map(weight);
        [Some(Instruction::BackwardInput(unit(microbatch))), late].into_iter().flatten()
    };
    let mut list = alternate(warm_up(stages, microbatches, stage), microbatches, unit, backward);
    list.extend((microbatches.saturating_sub(stage)..microbatches).map(weight));
    list
}
