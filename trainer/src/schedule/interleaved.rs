//! Interleaved 1F1B (Narayanan et al., arXiv 2104.04473, section 2.2.2), in Megatron-LM's order.
//!
//! Each stage holds `v` chunks of the model, so a microbatch passes every stage `v` times. Units go in groups of `p` microbatches: all `p` through chunk
//! 0, then all `p` through chunk 1 and so on, then the next group; backwards the same from the last chunk down. A group of `p` is just what the other
//! stages need until the first of it comes round again: hence `m % p == 0`.
//!
//! Over the `m v` units of a stage the pattern is 1F1B's, with a longer warm-up: the first gradient of stage `r` is that of the last chunk, behind
//! `(v - 1) p` units of the chunks before, and one more stage away costs two units more, a forward on the way there and a backward on the way back. So
//! stage `r` warms up with `2 (p - r - 1) + (v - 1) p` units, and holds one more at most over all its chunks. The chunks do not all hold their most at
//! once: sets of activations of each chunk's own, as many as it ever needs, come to somewhat more.

use super::one_f_one_b::alternate;
use super::{Instruction, Unit};

/// The work of a stage.
pub(super) fn work(stages: usize, chunks: usize, microbatches: usize, stage: usize) -> Vec<Instruction> {
    let order = |k: usize| {
        let (group, place) = (k / (stages * chunks), k % (stages * chunks));
        Unit { chunk: place / stages, microbatch: group * stages + place % stages }
    };
    let backward = |k| {
        let Unit { chunk, microbatch } = order(k);
        [Instruction::Backward(Unit { chunk: chunks - 1 - chunk, microbatch })]
    };
    let count = microbatches * chunks;
    alternate(warm_up(stages, chunks, stage).min(count), count, order, backward)
}

/// Units that a stage runs forward ahead of its first backward, where there are as many.
pub(super) fn warm_up(stages: usize, chunks: usize, stage: usize) -> usize {
    2 * (stages - stage - 1) + (chunks - 1) * stages
}
