use super::{apart, axes, dtype, float, shape, workspace};
use crate::{Buffer, DType, Error, Result, View};

/// Extents of an [`AttentionCached`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionCachedDims {
    /// New tokens.
    pub t: usize,
    /// Heads on this rank.
    pub a: usize,
    /// Head size.
    pub d: usize,
    /// Slots of the cache: the sequences that it holds.
    pub n: usize,
    /// Tokens of a slot.
    pub s: usize,
}

/// Causal attention of new tokens over a cache of keys and values: what generation and scoring do, with any mixture of sequences of any lengths, a
/// token a row.
///
/// Row `i` is the token at `position` of the sequence in `slot`, with `places[i] = [slot, position, shared slot, shared length]`. First every row's key and value
/// are put into the cache, at its slot and position; then `out[i] = sum_k p[k] V[k]`, `p = softmax over k <= position of scale q[i] . K[k]`, where the keys and values
/// `k < shared length` are those of the shared slot and all others those of the row's own slot: sequences that begin alike need the beginning once.
///
/// A row whose slot is `n` or more, or whose position is `s` or more, is padding: nothing is put into the cache, and its output is 0. A shared slot of `n` or more
/// shares nothing. No two rows have one slot and position, and no row is put where another one shares. A row's result does not depend on the other rows, to the
/// bit, beyond what they put into the cache.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `qkv` | `[t, a, 3, d]` | float | as [`Attention`](super::Attention)'s |
/// | `places` | `[t, 4]` | u32 | |
/// | `cache` | `[n, a, 2, s, d]` | as `qkv` | a head's keys, then its values; updated |
/// | `out` | `[t, a, d]` | as `qkv` | |
pub struct AttentionCached<'a, B> {
    /// Queries, keys and values of the new tokens.
    pub qkv: View<'a, B>,
    /// Where each of them stands.
    pub places: View<'a, B>,
    /// Keys and values of all tokens so far.
    pub cache: View<'a, B>,
    /// Output.
    pub out: View<'a, B>,
    /// Factor of the scores: `1 / sqrt(d)`.
    pub scale: f32,
    /// Scratch.
    pub workspace: View<'a, B>,
}

impl<B: Buffer> AttentionCached<'_, B> {
    /// Checks the operands.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`].
    pub fn check(&self) -> Result<AttentionCachedDims> {
        const OP: &str = "attention_cached";
        let [t, a, three, d] = axes(OP, "qkv", "[t, a, 3, d]", self.qkv)?;
        float(OP, "qkv", self.qkv)?;
        if three != 3 || d == 0 {
            let expected = "[t, a, 3, d]".to_owned();
            return Err(Error::Shape { op: OP, tensor: "qkv", expected, got: self.qkv.shape() });
        }
        let [n, _, _, s, _] = axes(OP, "cache", "[n, a, 2, s, d]", self.cache)?;
        shape(OP, "cache", self.cache, &[n, a, 2, s, d])?;
        shape(OP, "places", self.places, &[t, 4])?;
        shape(OP, "out", self.out, &[t, a, d])?;
        dtype(OP, "places", self.places, DType::U32)?;
        dtype(OP, "cache", self.cache, self.qkv.dtype())?;
        dtype(OP, "out", self.out, self.qkv.dtype())?;
        let (qkv, places, cache) = (("qkv", self.qkv), ("places", self.places), ("cache", self.cache));
        apart(OP, ("out", self.out), &[qkv, places, cache], false)?;
        apart(OP, cache, &[qkv, places], false)?;
        workspace(OP, self.workspace, &[qkv, places, cache, ("out", self.out)])?;
        Ok(AttentionCachedDims { t, a, d, n, s })
    }
}
