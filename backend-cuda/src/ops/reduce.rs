use backend::ops::check_reduce;
use backend::{Error, ReduceOp, Result, View};

use crate::backend::CudaBackend;
use crate::launch::{at, fours, of, wide};
use crate::memory::CudaBuffer;

/// Inputs, and outputs, of one launch at the most: their addresses are its argument.
const MOST: usize = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct ReduceParams {
    inputs: [u64; MOST],
    outputs: [u64; MOST],
    n: u64,
    count: u32,
    written: u32,
    max: u32,
    wide: u32,
}

impl CudaBackend {
    pub(crate) fn do_reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, CudaBuffer>],
        outputs: &[View<'_, CudaBuffer>],
    ) -> Result<()> {
        let n = check_reduce(inputs, outputs)?;
        let most = inputs.len().max(outputs.len());
        if most > MOST {
            return Err(Error::Limit {
                op: "reduce",
                what: "a reduction".to_owned(),
                limit: "buffers of one launch",
                allowed: MOST as u64,
                asked: most as u64,
                remedy: "reduce smaller groups, then their results",
            });
        }
        let addresses = |views: &[View<'_, CudaBuffer>]| {
            let mut addresses = [0; MOST];
            addresses.iter_mut().zip(views).for_each(|(to, view)| *to = at(*view));
            addresses
        };
        let params = ReduceParams {
            inputs: addresses(inputs),
            outputs: addresses(outputs),
            n: n as u64,
            count: inputs.len() as u32,
            written: outputs.len() as u32,
            max: u32::from(op == ReduceOp::Max),
            wide: wide(inputs) & wide(outputs),
        };
        let dtype = inputs[0].dtype();
        self.launch("reduce", (of("elementwise.cu", dtype), "reduce"), fours(n), 256, params)
    }
}
