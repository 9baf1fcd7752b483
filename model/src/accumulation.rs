//! How the gradients of a step's microbatches are added up.
//!
//! One after the other into one buffer; or, where the sum must not depend on how many replicas share the batch, in a balanced binary tree over the
//! microbatches: each one's gradients are computed into a clean buffer and carried like the ones of a binary counter, with a buffer for each level of the
//! tree. Replicas hold neighbouring blocks of the global batch, so that their sums are its subtrees. Whatever else is added up, over token chunks or over the
//! two uses of a table, is so inside of each microbatch or behind the sum over all of them, never between.

use std::ops::Range;

use backend::ops::Add;
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

/// The two halves of a backward pass, whose parameters' gradients a zero-bubble schedule computes at different times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Biases and LayerNorms: with the gradient of the input.
    Input,
    /// Matrices: with the weights' gradients.
    Weight,
}

/// Where the halves' gradients are in the flat buffer.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// Of biases and LayerNorms.
    pub input: Range<usize>,
    /// Further token chunks' part of these, which is added to them within each microbatch.
    pub copies: Range<usize>,
    /// Of matrices.
    pub weight: Vec<Range<usize>>,
}

/// The buffers of the tree.
pub struct Accumulation<B: Backend> {
    /// A partial sum of 2^i microbatches each.
    levels: Vec<Tensor<B::Buffer>>,
    microbatches: usize,
    ranges: Ranges,
}

impl<B: Backend> Accumulation<B> {
    /// A tree over a power of two of microbatches, for gradients of `len` elements.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, microbatches: usize, len: usize, ranges: Ranges) -> Result<Self> {
        debug_assert!(microbatches.is_power_of_two(), "a tree over {microbatches} microbatches");
        let level = |_| backend.alloc(Class::Gradients, DType::F32, Shape::new(&[len]));
        let levels = (0..microbatches.trailing_zeros()).map(level).collect::<Result<_>>()?;
        Ok(Self { levels, microbatches, ranges })
    }

    /// What is added up over microbatches.
    fn summed(&self, half: Half) -> impl Iterator<Item = &Range<usize>> {
        let ranges = match half {
            Half::Input => std::slice::from_ref(&self.ranges.input),
            Half::Weight => &self.ranges.weight,
        };
        ranges.iter().filter(|range| !range.is_empty())
    }

    /// Makes room for the gradients of a microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn begin_microbatch(&self, backend: &B, gradients: View<'_, B::Buffer>, half: Half) -> Result<()> {
        let copies = (half == Half::Input && !self.ranges.copies.is_empty()).then_some(&self.ranges.copies);
        let mut computed = self.summed(half).chain(copies);
        computed.try_for_each(|range| backend.fill(gradients.rows(range.start, range.len())?, 0.0))
    }

    /// Adds the gradients of microbatch `index` to those before it. Behind the last one their sum stands in `gradients`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn end_microbatch(
        &self,
        backend: &B,
        gradients: View<'_, B::Buffer>,
        half: Half,
        index: usize,
    ) -> Result<()> {
        let carries = index.trailing_ones() as usize;
        for range in self.summed(half) {
            let y = gradients.rows(range.start, range.len())?;
            for level in &self.levels[..carries] {
                backend.add(Add { x: level.view().rows(range.start, range.len())?, y, alpha: 1.0 })?;
            }
            if index + 1 < self.microbatches {
                backend.copy(y, self.levels[carries].view().rows(range.start, range.len())?)?;
            }
        }
        Ok(())
    }
}
