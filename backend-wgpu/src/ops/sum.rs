use backend::Result;
use backend::ops::{BlockSquares, Sum};

use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Numbers that a workgroup sums, unless that makes more than [`SPANS`] partial sums.
const SPAN: usize = 4096;
/// Partial sums at the most.
const SPANS: usize = 4096;

/// Numbers of a span, of `n` in all.
fn span(n: usize) -> usize {
    n.div_ceil(SPANS).next_multiple_of(64).max(SPAN)
}

pub(crate) fn workspace(n: usize) -> usize {
    n.div_ceil(span(n))
}

impl WgpuBackend {
    pub(crate) fn do_sum(&self, args: Sum<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "sum";
        let n = args.check()?;
        let Sum { x, out, alpha, beta, workspace: space } = args;
        roomy(OP, space, workspace(n))?;
        let (x, partial, span) = (flat(x)?, flat(space)?.rows(0, workspace(n))?, span(n));
        // Pieces end where a span does.
        let piece = self.window() / span * span;
        for first in (0..n).step_by(piece.max(1)) {
            let n = piece.min(n - first);
            let spans = n.div_ceil(span);
            let params = kernels::SumPartial { n: n as u32, spans: spans as u32, span: span as u32 };
            self.call(OP, params)
                .define("ROW_LANES", self.row_lanes(span))
                .wide(n % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .write(partial.rows(first / span, spans)?)
                .run(Grid::Each(spans))?;
        }
        self.call(OP, kernels::SumFinal { spans: partial.len() as u32, alpha, beta })
            .define("ROW_LANES", self.row_lanes(partial.len()))
            .read(partial)
            .write(out)
            .run(Grid::Exact([1, 1, 1]))
    }

    pub(crate) fn do_block_squares(&self, args: BlockSquares<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let BlockSquares { x, out, block } = args;
        let (x, out) = (flat(x)?, flat(out)?);
        let n = x.len();
        // Pieces end where a block does. What is longer than a window is refused at launch.
        let block = block.min(n.max(1));
        let piece = (self.window() / block).max(1) * block;
        for first in (0..n).step_by(piece) {
            let n = piece.min(n - first);
            let blocks = n.div_ceil(block);
            let params = kernels::BlockSquares { n: n as u32, blocks: blocks as u32, block: block as u32 };
            self.call("block_squares", params)
                .define("ROW_LANES", self.row_lanes(args.block))
                .wide(n % 4 == 0 && block % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .write(out.rows(first / block, blocks)?)
                .run(Grid::Each(blocks))?;
        }
        Ok(())
    }
}
