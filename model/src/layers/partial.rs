//! Sums over columns that the tensor group cuts: Megatron's g in a forward, f in a backward (Shoeybi et al. 2019, section 3).

use backend::ops::Cast;
use backend::{Backend, ReduceOp, Result, View};

use super::Context;

impl<B: Backend> Context<'_, B> {
    /// Where chunk `chunk` of this rank writes its partial sum `[t, h]` of what goes `to`: straight there if nothing is to be added on this rank and the
    /// types agree.
    pub fn partial<'v>(&'v self, chunk: usize, to: View<'v, B::Buffer>) -> View<'v, B::Buffer> {
        match self.sums_in_place() {
            true => to,
            false => self.scratch.partial.at(chunk),
        }
    }

    fn sums_in_place(&self) -> bool {
        self.dims.chunks == 1 && self.dims.token_parts == 1 && self.dims.partial == self.dims.dtype
    }

    /// `to` = the sum of all chunks' [`partial`](Self::partial)s, this rank's and the others': `[t, h]`, or `[t', h]` where the tokens are shared out. One
    /// balanced tree over the chunks: a rank's own chunks are a subtree of it.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn sum_partials(&self, to: View<'_, B::Buffer>) -> Result<()> {
        if self.sums_in_place() {
            return self.tensor.sum(to);
        }
        let partial = &self.scratch.partial;
        let same_type = self.dims.partial == self.dims.dtype;
        let shared_out = self.dims.token_parts > 1;
        let own = if same_type && !shared_out { to } else { partial.at(0) };
        if partial.len() > 1 {
            let chunks: Vec<_> = partial.iter().collect();
            self.backend.reduce(ReduceOp::Sum, &chunks, &[own])?;
        }
        match &self.scratch.total {
            None if shared_out => self.tensor.sum_scatter(own, to),
            None => {
                self.tensor.sum(own)?;
                if same_type { Ok(()) } else { self.backend.cast(Cast { src: own, dst: to }) }
            }
            Some(total) => {
                self.tensor.sum_scatter(own, total.view())?;
                self.backend.cast(Cast { src: total.view(), dst: to })
            }
        }
    }
}
