//! The operations, one file each: the arguments' check, the cut into tasks, and the kernel.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod attention_backward;
pub(crate) mod attention_cached;
pub(crate) mod bias;
pub(crate) mod bias_dropout_residual;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod gelu;
pub(crate) mod layernorm;
pub(crate) mod matmul;
pub(crate) mod reduce;

/// Elements of a task of an elementwise operation: long enough to hide the handing over, short enough to share.
pub(crate) const GRAIN: usize = 16_384;

/// Rows of a task, for an operation on rows of `n` elements: about [`GRAIN`] elements.
pub(crate) fn row_grain(n: usize) -> usize {
    (GRAIN / n.max(1)).max(1)
}
