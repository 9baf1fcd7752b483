use super::{apart, axes, dtype, float, shape, within, workspace};
use crate::philox::Stream;
use crate::{Buffer, DType, Error, Result, View};

/// Which attention probabilities a dropout keeps: element `[b, a, q, k]` of this rank is element
/// `(((first_sample + b) heads + first_head + a) s + q) s + k` of the stream, whatever the layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionDropout {
    /// Probability of being dropped, in `[0, 1)`.
    pub p: f32,
    /// Seed and stream.
    pub stream: Stream,
    /// Global index of the microbatch's first sample.
    pub first_sample: u64,
    /// Global index of this rank's first head.
    pub first_head: usize,
    /// Heads of the whole model.
    pub heads: usize,
}

impl AttentionDropout {
    /// Factor of the probabilities that are kept.
    pub fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// Index of probability `[b, a, q, 0]` of this rank in the stream, for sequences of `s` tokens.
    pub fn row(&self, b: usize, a: usize, q: usize, s: usize) -> u64 {
        let head = (self.first_sample + b as u64) * self.heads as u64 + (self.first_head + a) as u64;
        (head * s as u64 + q as u64) * s as u64
    }

    fn check(&self, op: &'static str) -> Result<()> {
        within(op, "p", self.p, "at least 0 and below 1", (0.0..1.0).contains(&self.p))
    }
}

/// Extents of an [`Attention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// Sequences.
    pub b: usize,
    /// Tokens of a sequence.
    pub s: usize,
    /// Heads on this rank.
    pub a: usize,
    /// Head size.
    pub d: usize,
}

/// Causal attention (Vaswani et al. 2017, eq. 1), softmax in fp32 and streaming (Dao et al. 2022): no `[s, s]` matrix is kept.
///
/// `p[q, k] = softmax over k <= q of scale Q[q] . K[k]`, `out[q] = sum_k dropout(p[q, k]) V[k]`, `lse[q] = ln sum_{k <= q} exp(scale Q[q] . K[k])`.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `qkv` | `[b, s, a, 3, d]` | float | a head's query, key and value lie together, so that a cut by heads is a cut by rows of the weight |
/// | `out` | `[b, s, a, d]` | as `qkv` | |
/// | `lse` | `[b, a, s]` | f32 | saved for the backward |
pub struct Attention<'a, B> {
    /// Queries, keys and values.
    pub qkv: View<'a, B>,
    /// Output.
    pub out: View<'a, B>,
    /// Log-sum-exp of each row of scores.
    pub lse: View<'a, B>,
    /// Factor of the scores: `1 / sqrt(d)`.
    pub scale: f32,
    /// What is kept of the probabilities; `None` keeps all.
    pub dropout: Option<AttentionDropout>,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> Attention<'_, B> {
    /// Checks the operands.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`], [`Error::Argument`].
    pub fn check(&self) -> Result<AttentionDims> {
        const OP: &str = "attention";
        let dims = extents(OP, self.qkv)?;
        let AttentionDims { b, s, a, d } = dims;
        shape(OP, "out", self.out, &[b, s, a, d])?;
        shape(OP, "lse", self.lse, &[b, a, s])?;
        dtype(OP, "out", self.out, self.qkv.dtype())?;
        dtype(OP, "lse", self.lse, DType::F32)?;
        if let Some(dropout) = &self.dropout {
            dropout.check(OP)?;
        }
        apart(OP, ("out", self.out), &[("qkv", self.qkv)], false)?;
        apart(OP, ("lse", self.lse), &[("qkv", self.qkv), ("out", self.out)], false)?;
        workspace(OP, self.workspace, &[("qkv", self.qkv), ("out", self.out), ("lse", self.lse)])?;
        Ok(dims)
    }
}

/// Gradient of [`Attention`], the probabilities recomputed from `lse` and the mask from its stream (Dao et al. 2022, algorithm 4).
///
/// With `D[q] = dout[q] . out[q]`, `dp = mask / (1 - p) (dout V^T)`: `ds = p (dp - D)`, `dQ = scale ds K`, `dK = scale ds^T Q`,
/// `dV = dropout(p)^T dout`.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `qkv`, `dqkv` | `[b, s, a, 3, d]` | float, alike |
/// | `out`, `dout` | `[b, s, a, d]` | as `qkv` |
/// | `lse` | `[b, a, s]` | f32 |
pub struct AttentionBackward<'a, B> {
    /// The forward's input.
    pub qkv: View<'a, B>,
    /// The forward's output.
    pub out: View<'a, B>,
    /// The forward's log-sum-exp.
    pub lse: View<'a, B>,
    /// Upstream gradient.
    pub dout: View<'a, B>,
    /// Gradient of the input, overwritten.
    pub dqkv: View<'a, B>,
    /// The forward's factor.
    pub scale: f32,
    /// The forward's dropout.
    pub dropout: Option<AttentionDropout>,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> AttentionBackward<'_, B> {
    /// Checks the operands.
    ///
    /// # Errors
    /// As [`Attention::check`].
    pub fn check(&self) -> Result<AttentionDims> {
        const OP: &str = "attention_backward";
        let dims = extents(OP, self.qkv)?;
        let AttentionDims { b, s, a, d } = dims;
        shape(OP, "out", self.out, &[b, s, a, d])?;
        shape(OP, "dout", self.dout, &[b, s, a, d])?;
        shape(OP, "dqkv", self.dqkv, &[b, s, a, 3, d])?;
        shape(OP, "lse", self.lse, &[b, a, s])?;
        for (name, view) in [("out", self.out), ("dout", self.dout), ("dqkv", self.dqkv)] {
            dtype(OP, name, view, self.qkv.dtype())?;
        }
        dtype(OP, "lse", self.lse, DType::F32)?;
        if let Some(dropout) = &self.dropout {
            dropout.check(OP)?;
        }
        let inputs = [("qkv", self.qkv), ("out", self.out), ("lse", self.lse), ("dout", self.dout)];
        apart(OP, ("dqkv", self.dqkv), &inputs, false)?;
        workspace(OP, self.workspace, &inputs)?;
        workspace(OP, self.workspace, &[("dqkv", self.dqkv)])?;
        Ok(dims)
    }
}

fn extents<B: Buffer>(op: &'static str, qkv: View<'_, B>) -> Result<AttentionDims> {
    let [b, s, a, three, d] = axes(op, "qkv", "[b, s, a, 3, d]", qkv)?;
    float(op, "qkv", qkv)?;
    match three == 3 && d > 0 {
        true => Ok(AttentionDims { b, s, a, d }),
        false => {
            Err(Error::Shape { op, tensor: "qkv", expected: "[b, s, a, 3, d]".to_owned(), got: qkv.shape() })
        }
    }
}
