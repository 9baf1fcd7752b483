use backend::Result;
use backend::ops::{BlockSquares, Sum};

use crate::backend::CudaBackend;
use crate::kernels::Variant;
use crate::launch::{at, extent, of, roomy};
use crate::memory::CudaBuffer;

/// Elements whose sum is one of the workspace's: the kernels' PIECE.
const PIECE: usize = 4096;

/// A sum a piece.
pub(crate) fn workspace(n: usize) -> usize {
    n.div_ceil(PIECE)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    x: u64,
    partial: u64,
    out: u64,
    n: u64,
    alpha: f32,
    beta: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SquaresParams {
    x: u64,
    out: u64,
    n: u64,
    block: u64,
    blocks: u64,
}

impl CudaBackend {
    pub(crate) fn do_sum(&self, args: Sum<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "sum";
        let n = args.check()?;
        roomy(OP, args.workspace, workspace(n))?;
        let Sum { x, out, alpha, beta, workspace: partial } = args;
        let params = Params { x: at(x), partial: at(partial), out: at(out), n: n as u64, alpha, beta };
        let variant = of("sum.cu", x.dtype());
        self.launch(OP, (variant, "sum_pieces"), [extent(OP, "pieces", workspace(n))?, 1, 1], 256, params)?;
        self.launch(OP, (variant, "sum_all"), [1, 1, 1], 256, params)
    }

    pub(crate) fn do_block_squares(&self, args: BlockSquares<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "block_squares";
        let blocks = args.check()?;
        let BlockSquares { x, out, block } = args;
        let params = SquaresParams {
            x: at(x),
            out: at(out),
            n: x.len() as u64,
            block: block as u64,
            blocks: blocks as u64,
        };
        // A warp a block, eight warps a block of the grid.
        let grid = [extent(OP, "blocks", blocks.div_ceil(8))?, 1, 1];
        self.launch(OP, (Variant::plain("squares.cu"), OP), grid, 256, params)
    }
}
