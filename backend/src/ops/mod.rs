//! The operations' arguments: one file an operation, each with its maths, its operands' shapes, and the `check` that every backend calls first.
//!
//! Letters: `b` sequences of a microbatch, `s` tokens of a sequence, `t = b s` tokens, `h` hidden size, `a` heads on this rank, `d` head size, `v`
//! vocabulary rows on this rank. Float operands of one operation have one type; statistics, losses and what is accumulated are f32.

mod adamw;
mod attention;
mod attention_cached;
mod bias;
mod bias_dropout_residual;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod gelu;
mod layernorm;
mod matmul;
mod reduce;

pub use adamw::AdamW;
pub use attention::{Attention, AttentionBackward, AttentionDims, AttentionDropout};
pub use attention_cached::{AttentionCached, AttentionCachedDims};
pub use bias::{BiasAdd, BiasBackward};
pub use bias_dropout_residual::BiasDropoutResidual;
pub use cross_entropy::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};
pub use dropout::{Dropout, DropoutMask};
pub use elementwise::{Add, Cast, check_copy, check_float, check_reduce};
pub use embedding::{Embedding, EmbeddingBackward};
pub use gelu::{BiasGelu, Gelu, GeluBackward};
pub use layernorm::{LayerNorm, LayerNormBackward};
pub use matmul::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
pub use reduce::{BlockSquares, Sum};

use crate::{Buffer, DType, Error, Result, View};

/// What an operation is about to ask scratch memory for; see [`Backend::workspace`](crate::Backend::workspace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the operations' own letters")]
pub enum Scratch {
    /// [`LayerNormBackward`].
    LayerNormBackward { t: usize, h: usize },
    /// [`BiasBackward`].
    BiasBackward { t: usize, n: usize },
    /// [`Attention`].
    Attention { b: usize, s: usize, a: usize, d: usize },
    /// [`AttentionBackward`].
    AttentionBackward { b: usize, s: usize, a: usize, d: usize },
    /// [`AttentionCached`].
    AttentionCached { t: usize, a: usize, s: usize, d: usize },
    /// [`EmbeddingBackward`].
    EmbeddingBackward { t: usize, v: usize, h: usize },
    /// [`Sum`].
    Sum { n: usize },
}

/// The operand's extents are these.
pub(crate) fn shape<B: Buffer>(
    op: &'static str,
    tensor: &'static str,
    view: View<'_, B>,
    expected: &[usize],
) -> Result<()> {
    match view.extents() == expected {
        true => Ok(()),
        false => Err(Error::Shape { op, tensor, expected: format!("{expected:?}"), got: view.shape() }),
    }
}

/// The operand has `N` axes; returns their extents.
pub(crate) fn axes<const N: usize, B: Buffer>(
    op: &'static str,
    tensor: &'static str,
    letters: &'static str,
    view: View<'_, B>,
) -> Result<[usize; N]> {
    view.extents().try_into().map_err(|_| Error::Shape {
        op,
        tensor,
        expected: letters.to_owned(),
        got: view.shape(),
    })
}

/// The operand's type is this.
pub(crate) fn dtype<B: Buffer>(
    op: &'static str,
    tensor: &'static str,
    view: View<'_, B>,
    expected: DType,
) -> Result<()> {
    match view.dtype() == expected {
        true => Ok(()),
        false => Err(Error::DType { op, tensor, expected, got: view.dtype() }),
    }
}

/// The operand holds floating-point numbers.
pub(crate) fn float<B: Buffer>(op: &'static str, tensor: &'static str, view: View<'_, B>) -> Result<()> {
    match view.dtype() {
        DType::U32 => Err(Error::DType { op, tensor, expected: DType::F32, got: DType::U32 }),
        _ => Ok(()),
    }
}

/// `output` shares no byte with any of `inputs`; with `in_place`, being the very same view is allowed.
pub(crate) fn apart<B: Buffer>(
    op: &'static str,
    (output, written): (&'static str, View<'_, B>),
    inputs: &[(&'static str, View<'_, B>)],
    in_place: bool,
) -> Result<()> {
    for (input, read) in inputs {
        if written.overlaps(read) && !(in_place && written.same(read)) {
            return Err(Error::Overlap { op, output, input });
        }
    }
    Ok(())
}

/// The workspace is f32 (how long it must be is the backend's word) and shares no byte with an operand.
pub(crate) fn workspace<B: Buffer>(
    op: &'static str,
    view: View<'_, B>,
    operands: &[(&'static str, View<'_, B>)],
) -> Result<()> {
    dtype(op, "workspace", view, DType::F32)?;
    apart(op, ("workspace", view), operands, false)
}

/// A number lies in its range.
pub(crate) fn within(
    op: &'static str,
    name: &'static str,
    value: f32,
    range: &'static str,
    ok: bool,
) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Argument { op, name, value: value.to_string(), range }),
    }
}
