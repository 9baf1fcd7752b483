//! The tensor-parallel group as the layers see it: Megatron's conjugate operators f and g (Shoeybi et al. 2019, section 3).

use backend::{Buffer, Communicator, Group, ReduceOp, Result, View};

/// The ranks that share every layer of this stage.
pub struct TensorGroup<'a, B: Buffer> {
    communicator: &'a dyn Communicator<B>,
    group: Group,
}

impl<'a, B: Buffer> TensorGroup<'a, B> {
    /// The calling rank's tensor-parallel group.
    pub fn new(communicator: &'a dyn Communicator<B>, group: Group) -> Self {
        Self { communicator, group }
    }

    /// Sums the ranks' partial results: g in the forward of a row-parallel layer, f in the backward of a column-parallel one.
    ///
    /// # Errors
    /// Those of [`Communicator::all_reduce`].
    pub fn sum(&self, partial: View<'_, B>) -> Result<()> {
        self.communicator.all_reduce(&self.group, ReduceOp::Sum, partial)
    }

    /// The ranks' maximum, element by element.
    ///
    /// # Errors
    /// Those of [`Communicator::all_reduce`].
    pub fn max(&self, partial: View<'_, B>) -> Result<()> {
        self.communicator.all_reduce(&self.group, ReduceOp::Max, partial)
    }
}
