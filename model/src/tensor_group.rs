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

    /// Ranks of the group.
    pub fn size(&self) -> usize {
        self.group.size()
    }

    /// `own` = this rank's part of the ranks' sum, of which it is the `1 / size`: g of a row-parallel layer under sequence parallelism (Korthikanti et al.
    /// 2022, section 4.2.2).
    ///
    /// # Errors
    /// Those of [`Communicator::reduce_scatter`].
    pub fn sum_scatter(&self, partial: View<'_, B>, own: View<'_, B>) -> Result<()> {
        self.communicator.reduce_scatter(&self.group, partial, own)
    }

    /// `whole` = the ranks' parts behind each other; `own` may be this rank's part of `whole`.
    ///
    /// # Errors
    /// Those of [`Communicator::all_gather`].
    pub fn gather(&self, own: View<'_, B>, whole: View<'_, B>) -> Result<()> {
        self.communicator.all_gather(&self.group, own, whole)
    }
}
