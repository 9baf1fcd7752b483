use backend::ops::{Sum, SumSquares};
use backend::{Result, View};

use crate::backend::{WgpuBackend, flat, only_f32, roomy};
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

struct Total<'a> {
    op: &'static str,
    x: View<'a, WgpuBuffer>,
    out: View<'a, WgpuBuffer>,
    workspace: View<'a, WgpuBuffer>,
    squares: bool,
    alpha: f32,
    beta: f32,
}

impl WgpuBackend {
    pub(crate) fn do_sum(&self, args: Sum<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let Sum { x, out, alpha, beta, workspace } = args;
        self.total(Total { op: "sum", x, out, workspace, squares: false, alpha, beta })
    }

    pub(crate) fn do_sum_squares(&self, args: SumSquares<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let SumSquares { x, out, beta, workspace } = args;
        self.total(Total { op: "sum_squares", x, out, workspace, squares: true, alpha: 1.0, beta })
    }

    fn total(&self, Total { op, x, out, workspace: space, squares, alpha, beta }: Total<'_>) -> Result<()> {
        only_f32(op, x)?;
        let n = x.len();
        roomy(op, space, workspace(n))?;
        let (x, partial) = (flat(x)?, flat(space)?.rows(0, workspace(n))?);
        let span = span(n);
        // Pieces end where a span does.
        let piece = self.window() / span * span;
        for first in (0..n).step_by(piece.max(1)) {
            let n = piece.min(n - first);
            let spans = n.div_ceil(span);
            let params = kernels::SumPartial { n: n as u32, spans: spans as u32, span: span as u32 };
            self.call(op, params)
                .define("SQUARES", squares)
                .define("ROW_LANES", self.row_lanes(span))
                .read(x.rows(first, n)?)
                .write(partial.rows(first / span, spans)?)
                .run(Grid::Each(spans))?;
        }
        self.call(op, kernels::SumFinal { spans: partial.len() as u32, alpha, beta })
            .define("ROW_LANES", self.row_lanes(partial.len()))
            .read(partial)
            .write(out)
            .run(Grid::Exact([1, 1, 1]))
    }
}
