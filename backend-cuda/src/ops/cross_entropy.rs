use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};
use backend::{DType, Result};

use crate::backend::CudaBackend;
use crate::kernels::{Variant, element};
use crate::launch::{at, extent, of};
use crate::memory::CudaBuffer;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Params {
    logits: u64,
    targets: u64,
    max: u64,
    sum_exp: u64,
    target: u64,
    dlogits: u64,
    first_column: u64,
    v: u32,
    scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LossParams {
    sum_exp: u64,
    target: u64,
    loss: u64,
    n: u64,
}

impl CudaBackend {
    /// A block a token; `gradient` is the type of what only the backward writes.
    fn rows(
        &self,
        op: &'static str,
        (logits, gradient): (DType, DType),
        [t, v]: [usize; 2],
        params: Params,
    ) -> Result<()> {
        let params = Params { v: extent(op, "a row of logits", v)?, ..params };
        let variant = of("cross_entropy.cu", logits).and("GRADIENT", element(gradient));
        self.launch(op, (variant, op), [extent(op, "tokens", t)?, 1, 1], 256, params)
    }

    pub(crate) fn do_cross_entropy_max(&self, args: CrossEntropyMax<'_, CudaBuffer>) -> Result<()> {
        let extents = args.check()?;
        let params = Params { logits: at(args.logits), max: at(args.max), ..Params::default() };
        let dtype = args.logits.dtype();
        self.rows("cross_entropy_max", (dtype, dtype), extents, params)
    }

    pub(crate) fn do_cross_entropy_sums(&self, args: CrossEntropySums<'_, CudaBuffer>) -> Result<()> {
        let extents = args.check()?;
        let params = Params {
            logits: at(args.logits),
            targets: at(args.targets),
            max: at(args.max),
            sum_exp: at(args.sum_exp),
            target: at(args.target),
            first_column: args.first_column as u64,
            ..Params::default()
        };
        let dtype = args.logits.dtype();
        self.rows("cross_entropy_sums", (dtype, dtype), extents, params)
    }

    pub(crate) fn do_cross_entropy_backward(&self, args: CrossEntropyBackward<'_, CudaBuffer>) -> Result<()> {
        let extents = args.check()?;
        let params = Params {
            logits: at(args.logits),
            targets: at(args.targets),
            max: at(args.max),
            sum_exp: at(args.sum_exp),
            dlogits: at(args.dlogits),
            first_column: args.first_column as u64,
            scale: args.scale,
            ..Params::default()
        };
        let dtypes = (args.logits.dtype(), args.dlogits.dtype());
        self.rows("cross_entropy_backward", dtypes, extents, params)
    }

    pub(crate) fn do_cross_entropy_loss(&self, args: CrossEntropyLoss<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "cross_entropy_loss";
        let t = args.check()?;
        let params = LossParams {
            sum_exp: at(args.sum_exp),
            target: at(args.target),
            loss: at(args.loss),
            n: t as u64,
        };
        let blocks = extent(OP, "tokens", t)?.div_ceil(256);
        self.launch(OP, (Variant::plain("loss.cu"), OP), [blocks, 1, 1], 256, params)
    }
}
