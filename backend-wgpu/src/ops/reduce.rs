use backend::ops::check_reduce;
use backend::{Class, DType, ReduceOp, Result, View};

use crate::backend::{WgpuBackend, flat};
use crate::kernels::{self, REDUCE_INPUTS, REDUCE_OUTPUTS};
use crate::launch::Grid;
use crate::memory::WgpuBuffer;
use crate::preprocess::MAX_BINDINGS;

/// Inputs of a subtree that a kernel can combine into another buffer, and subtrees that it can combine into as many outputs: a power of two.
const SUBTREE: usize = 4;

type Views<'v, 'a> = &'v [View<'a, WgpuBuffer>];

impl WgpuBackend {
    pub(crate) fn do_reduce<'a>(
        &self,
        op: ReduceOp,
        inputs: Views<'_, 'a>,
        outputs: Views<'_, 'a>,
    ) -> Result<()> {
        let n = check_reduce(inputs, outputs)?;
        if n == 0 || outputs.is_empty() {
            return Ok(());
        }
        if fits(inputs, outputs) {
            return self.combine(op, inputs, outputs);
        }
        // Too many buffers for one kernel. Four neighbours are a subtree whatever comes after them: each four into scratch, in fp32, until four are left. All of an
        // element is read before any of it is written, so that outputs may be inputs.
        let parts = inputs.len().div_ceil(SUBTREE);
        let most = (self.window() / parts / 4 * 4).min(n.next_multiple_of(4));
        let scratch = self.pool.alloc(Class::Workspace, parts * most * DType::F32.size())?;
        let part = |i: usize, n: usize| View::new(&scratch, DType::F32, i * most, [n]);
        for first in (0..n).step_by(most) {
            let n = most.min(n - first);
            let cut = |views: Views<'_, 'a>| -> Result<Vec<View<'a, WgpuBuffer>>> {
                views.iter().map(|view| flat(*view)?.rows(first, n)).collect()
            };
            let mut sums = Vec::with_capacity(parts);
            for (i, some) in cut(inputs)?.chunks(SUBTREE).enumerate() {
                sums.push(part(i, n)?);
                self.combine(op, some, &sums[i..])?;
            }
            while sums.len() > SUBTREE {
                // Subtree i is written where part i was: it has been read already.
                for i in 0..sums.len().div_ceil(SUBTREE) {
                    let some = &sums[i * SUBTREE..sums.len().min((i + 1) * SUBTREE)];
                    self.combine(op, some, &[sums[i]])?;
                }
                sums.truncate(sums.len().div_ceil(SUBTREE));
            }
            for some in cut(outputs)?.chunks(MAX_BINDINGS - SUBTREE) {
                self.combine(op, &sums, some)?;
            }
        }
        Ok(())
    }

    /// At most eight inputs and outputs of at most eight buffers.
    fn combine(&self, op: ReduceOp, inputs: Views<'_, '_>, outputs: Views<'_, '_>) -> Result<()> {
        for (first, n) in self.pieces(inputs[0].len()) {
            let mut call = self
                .call("reduce", kernels::Reduce { n: n as u32 })
                .define("MAX", op == ReduceOp::Max)
                .wide(n % 4 == 0);
            for (input, name) in inputs.iter().zip(REDUCE_INPUTS) {
                call = call.define(name, true).read_wide(flat(*input)?.rows(first, n)?);
            }
            for (output, name) in outputs.iter().zip(REDUCE_OUTPUTS) {
                call = call.define(name, true).write_wide(flat(*output)?.rows(first, n)?);
            }
            call.run(Grid::Flat(n))?;
        }
        Ok(())
    }
}

/// Whether one kernel can bind them all: at most eight of each, and eight buffers.
fn fits(inputs: Views<'_, '_>, outputs: Views<'_, '_>) -> bool {
    let id = |view: &View<'_, WgpuBuffer>| view.buffer().memory().id;
    let mut written: Vec<_> = outputs.iter().map(id).collect();
    written.sort_unstable();
    written.dedup();
    let only_read = inputs.iter().filter(|input| !written.contains(&id(input))).count();
    inputs.len() <= REDUCE_INPUTS.len()
        && outputs.len() <= REDUCE_OUTPUTS.len()
        && written.len() + only_read <= MAX_BINDINGS
}
