//! 1F1B and GPipe (Narayanan et al., arXiv 2104.04473, section 2.2.1): one pattern with more or less warm-up.
//!
//! A stage runs `warm_up` forwards ahead, then a forward and a backward in turn, then the backwards that are left. It holds `warm_up + 1` microbatches at
//! most, fewer where there are not as many. The least warm-up that keeps every stage busy is the number of stages behind it, `p - r - 1`, as so many
//! forwards pass before the first gradient can come back; GPipe warms up with everything.

use super::{Instruction, Unit};

/// GPipe's work on any stage.
pub(super) fn gpipe(microbatches: usize) -> Vec<Instruction> {
    let unit = |microbatch| Unit { chunk: 0, microbatch };
    alternate(microbatches, microbatches, unit, |microbatch| [Instruction::Backward(unit(microbatch))])
}

/// 1F1B's work on a stage.
pub(super) fn work(stages: usize, microbatches: usize, stage: usize) -> Vec<Instruction> {
    let unit = |microbatch| Unit { chunk: 0, microbatch };
    let warm_up = warm_up(stages, microbatches, stage);
    alternate(warm_up, microbatches, unit, |microbatch| [Instruction::Backward(unit(microbatch))])
}

/// Forwards ahead of a stage's first backward.
pub(super) fn warm_up(stages: usize, microbatches: usize, stage: usize) -> usize {
    (stages - stage - 1).min(microbatches)
}

/// The pattern: `warm_up` of `count` forwards, then forward and backward in turn, then the backwards left. `forward` and `backward` give what the k-th of
/// each is.
pub(super) fn alternate<I: IntoIterator<Item = Instruction>>(
    warm_up: usize,
    count: usize,
    forward: impl Fn(usize) -> Unit,
    backward: impl Fn(usize) -> I,
) -> Vec<Instruction> {
    let mut list = Vec::with_capacity(3 * count);
    list.extend((0..warm_up).map(|k| Instruction::Forward(forward(k))));
    for k in 0..count {
        if warm_up + k < count {
            list.push(Instruction::Forward(forward(warm_up + k)));
        }
        list.extend(backward(k));
    }
    list
}
