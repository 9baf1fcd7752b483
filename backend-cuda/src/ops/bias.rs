use backend::ops::{BiasAdd, BiasBackward, BiasDropoutResidual, BiasGelu};
use backend::{Result, View};

use super::dropout::Mask;
use crate::backend::CudaBackend;
use crate::launch::{at, extent, fours, of, roomy, wide};
use crate::memory::CudaBuffer;

/// Rows whose share of the gradient is summed before the shares are: the kernels' PIECE.
const PIECE: usize = 128;

/// A sum a piece and column.
pub(crate) fn workspace(t: usize, n: usize) -> usize {
    t.div_ceil(PIECE) * n
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    x: u64,
    bias: u64,
    y: u64,
    n: u64,
    columns: u32,
    wide: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ResidualParams {
    x: u64,
    bias: u64,
    residual: u64,
    y: u64,
    n: u64,
    first: u64,
    mask: Mask,
    columns: u32,
    masked: u32,
    wide: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardParams {
    dy: u64,
    partial: u64,
    dbias: u64,
    rows: u32,
    columns: u32,
}

impl CudaBackend {
    fn bias(
        &self,
        op: &'static str,
        x: View<'_, CudaBuffer>,
        bias: View<'_, CudaBuffer>,
        y: View<'_, CudaBuffer>,
        columns: usize,
    ) -> Result<()> {
        let columns = extent(op, "a row", columns)?;
        let params = Params {
            x: at(x),
            bias: at(bias),
            y: at(y),
            n: x.len() as u64,
            columns,
            wide: wide(&[x, bias, y]),
        };
        self.launch(op, (of("bias.cu", x.dtype()), op), fours(x.len()), 256, params)
    }

    pub(crate) fn do_bias_add(&self, args: BiasAdd<'_, CudaBuffer>) -> Result<()> {
        let [_, n] = args.check()?;
        self.bias("bias_add", args.x, args.bias, args.x, n)
    }

    pub(crate) fn do_bias_gelu(&self, args: BiasGelu<'_, CudaBuffer>) -> Result<()> {
        let [_, n] = args.check()?;
        self.bias("bias_gelu", args.x, args.bias, args.y, n)
    }

    pub(crate) fn do_bias_dropout_residual(&self, args: BiasDropoutResidual<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "bias_dropout_residual";
        let [t, h] = args.check()?;
        let BiasDropoutResidual { x, bias, residual, y, mask } = args;
        let params = ResidualParams {
            x: at(x),
            bias: at(bias),
            residual: at(residual),
            y: at(y),
            n: (t * h) as u64,
            first: mask.as_ref().map_or(0, |mask| mask.first),
            mask: mask.as_ref().map_or(Mask::NONE, Mask::of),
            columns: extent(OP, "a row", h)?,
            masked: u32::from(mask.is_some()),
            wide: wide(&[x, bias, residual, y]),
        };
        self.launch(OP, (of("bias.cu", x.dtype()), OP), fours(t * h), 256, params)
    }

    pub(crate) fn do_bias_backward(&self, args: BiasBackward<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "bias_backward";
        let [t, n] = args.check()?;
        roomy(OP, args.workspace, workspace(t, n))?;
        if t == 0 {
            return Ok(());
        }
        let (rows, columns) = (extent(OP, "rows", t)?, extent(OP, "a row", n)?);
        let params = BackwardParams {
            dy: at(args.dy),
            partial: at(args.workspace),
            dbias: at(args.dbias),
            rows,
            columns,
        };
        let variant = of("bias.cu", args.dy.dtype());
        let (blocks, pieces) = (columns.div_ceil(128), t.div_ceil(PIECE) as u32);
        self.launch(OP, (variant, "bias_pieces"), [blocks, pieces, 1], 128, params)?;
        self.launch(OP, (variant, "bias_sum"), [blocks, 1, 1], 128, params)
    }
}
