use backend::Result;
use backend::ops::{LayerNorm, LayerNormBackward};

use crate::backend::CudaBackend;
use crate::launch::{at, extent, of, roomy};
use crate::memory::CudaBuffer;

/// Rows whose share of the parameters' gradients is summed before the shares are: the kernels' PIECE.
const PIECE: usize = 64;

/// Two sums a piece and column.
pub(crate) fn workspace(t: usize, h: usize) -> usize {
    2 * t.div_ceil(PIECE) * h
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    x: u64,
    gamma: u64,
    beta: u64,
    y: u64,
    mean: u64,
    rstd: u64,
    h: u32,
    eps: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardParams {
    x: u64,
    gamma: u64,
    mean: u64,
    rstd: u64,
    dy: u64,
    dx: u64,
    dgamma: u64,
    dbeta: u64,
    partial: u64,
    rows: u32,
    h: u32,
    accumulate: u32,
}

impl CudaBackend {
    pub(crate) fn do_layernorm(&self, args: LayerNorm<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "layernorm";
        let [t, h] = args.check()?;
        let params = Params {
            x: at(args.x),
            gamma: at(args.gamma),
            beta: at(args.beta),
            y: at(args.y),
            mean: at(args.mean),
            rstd: at(args.rstd),
            h: extent(OP, "a row", h)?,
            eps: args.eps,
        };
        self.launch(OP, (of("layernorm.cu", args.x.dtype()), OP), [extent(OP, "rows", t)?, 1, 1], 256, params)
    }

    pub(crate) fn do_layernorm_backward(&self, args: LayerNormBackward<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "layernorm_backward";
        let [t, h] = args.check()?;
        roomy(OP, args.workspace, workspace(t, h))?;
        if t == 0 {
            return Ok(());
        }
        let (rows, h) = (extent(OP, "rows", t)?, extent(OP, "a row", h)?);
        let params = BackwardParams {
            x: at(args.x),
            gamma: at(args.gamma),
            mean: at(args.mean),
            rstd: at(args.rstd),
            dy: at(args.dy),
            dx: at(args.dx),
            dgamma: at(args.dgamma),
            dbeta: at(args.dbeta),
            partial: at(args.workspace),
            rows,
            h,
            accumulate: u32::from(args.accumulate),
        };
        let variant = of("layernorm.cu", args.x.dtype());
        // The parameters' gradients first: dx may be dy.
        let pieces = rows.div_ceil(PIECE as u32);
        self.launch(OP, (variant, "layernorm_pieces"), [h.div_ceil(128), pieces, 1], 128, params)?;
        self.launch(OP, (variant, "layernorm_sum"), [h.div_ceil(128), 1, 1], 128, params)?;
        self.launch(OP, (variant, OP), [rows, 1, 1], 256, params)
    }
}
