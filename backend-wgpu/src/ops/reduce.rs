use backend::ops::check_reduce;
use backend::{Class, ReduceOp, Result, View};

use crate::backend::{WgpuBackend, flat, only_f32};
use crate::kernels::{self, REDUCE_INPUTS, REDUCE_OUTPUTS};
use crate::launch::Grid;
use crate::memory::WgpuBuffer;
use crate::preprocess::MAX_BINDINGS;

type Views<'v, 'a> = &'v [View<'a, WgpuBuffer>];

impl WgpuBackend {
    pub(crate) fn do_reduce(
        &self,
        op: ReduceOp,
        inputs: Views<'_, '_>,
        outputs: Views<'_, '_>,
    ) -> Result<()> {
        let n = check_reduce(inputs, outputs)?;
        only_f32("reduce", inputs[0])?;
        if n == 0 || outputs.is_empty() {
            return Ok(());
        }
        if fits(inputs, outputs) {
            return self.combine(op, inputs, outputs);
        }
        // Too many buffers for one kernel: the inputs are added to one place, in their order, which may be the first input only if that is an output too.
        let apart = outputs.iter().find(|o| !inputs.iter().any(|i| i.same(o)));
        let first = inputs[0];
        let in_place = outputs.iter().any(|o| o.same(&first)) && !inputs[1..].iter().any(|i| i.same(&first));
        let scratch;
        let total = match apart {
            _ if in_place => first,
            Some(output) => flat(*output)?,
            None => {
                scratch = self.pool.alloc(Class::Workspace, first.bytes())?;
                View::new(&scratch, first.dtype(), 0, [n])?
            }
        };
        if !total.same(&first) {
            self.do_copy(first, total)?;
        }
        for some in inputs[1..].chunks(MAX_BINDINGS - 1) {
            let mut parts = vec![total];
            parts.extend_from_slice(some);
            self.combine(op, &parts, &[total])?;
        }
        for output in outputs.iter().filter(|o| !o.same(&total)) {
            self.do_copy(total, *output)?;
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
