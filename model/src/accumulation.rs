//! How the gradients of a step's microbatches are added up.
//!
//! One after the other into one buffer; or, where the sum must not depend on how many replicas share the batch, in a balanced binary tree over the
//! microbatches: each one's gradients are computed into a clean buffer and carried like the ones of a binary counter, with a buffer for each level of the
//! tree. Replicas hold neighbouring blocks of the global batch, so that their sums are its subtrees.

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

/// The buffers of the tree.
pub struct Accumulation<B: Backend> {
    /// A partial sum of 2^i microbatches each; `None` without a tree.
    levels: Option<Vec<Tensor<B::Buffer>>>,
    microbatches: usize,
    matrices: Vec<Range<usize>>,
    vectors: Range<usize>,
}

impl<B: Backend> Accumulation<B> {
    /// For gradients of `len` elements, of which `matrices` and `vectors` belong to the two halves.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &B,
        tree: Option<usize>,
        len: usize,
        matrices: Vec<Range<usize>>,
        vectors: Range<usize>,
    ) -> Result<Self> {
        let level = |_| backend.alloc(Class::Gradients, DType::F32, Shape::new(&[len]));
        let levels =
            tree.map(|m| (0..m.trailing_zeros()).map(level).collect::<Result<Vec<_>>>()).transpose()?;
        debug_assert!(tree.is_none_or(usize::is_power_of_two), "a tree over {tree:?} microbatches");
        Ok(Self { levels, microbatches: tree.unwrap_or(0), matrices, vectors })
    }

    fn ranges(&self, half: Half) -> &[Range<usize>] {
        match half {
            Half::Input => std::slice::from_ref(&self.vectors),
            Half::Weight => &self.matrices,
        }
    }

    /// Begins a step.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn begin_step(&self, backend: &B, gradients: View<'_, B::Buffer>) -> Result<()> {
        match self.levels {
            Some(_) => Ok(()),
            None => backend.fill(gradients, 0.0),
        }
    }

    /// Makes room for the gradients of a microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn begin_microbatch(&self, backend: &B, gradients: View<'_, B::Buffer>, half: Half) -> Result<()> {
        if self.levels.is_some() {
            for range in self.ranges(half).iter().filter(|range| !range.is_empty()) {
                backend.fill(gradients.rows(range.start, range.len())?, 0.0)?;
            }
        }
        Ok(())
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
        let Some(levels) = &self.levels else { return Ok(()) };
        let carries = index.trailing_ones() as usize;
        for range in self.ranges(half).iter().filter(|range| !range.is_empty()) {
            let y = gradients.rows(range.start, range.len())?;
            for level in &levels[..carries] {
                backend.add(Add { x: level.view().rows(range.start, range.len())?, y, alpha: 1.0 })?;
            }
            if index + 1 < self.microbatches {
                backend.copy(y, levels[carries].view().rows(range.start, range.len())?)?;
            }
        }
        Ok(())
    }
}
