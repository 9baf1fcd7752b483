use backend::Result;
use backend::ops::{LayerNorm, LayerNormBackward};

use super::bias::{blocks, most_blocks};
use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

pub(crate) fn workspace(t: usize, h: usize) -> usize {
    2 * most_blocks(t) * h
}

impl WgpuBackend {
    pub(crate) fn do_layernorm(&self, args: LayerNorm<'_, WgpuBuffer>) -> Result<()> {
        let [t, h] = args.check()?;
        for (first, rows) in self.row_pieces(t, h) {
            self.call("layernorm", kernels::LayerNorm { rows: rows as u32, h: h as u32, eps: args.eps })
                .define("ROW_LANES", self.row_lanes(h))
                .wide(h % 4 == 0)
                .read_wide(args.x.rows(first, rows)?)
                .read_wide(args.gamma)
                .read_wide(args.beta)
                .write_wide(args.y.rows(first, rows)?)
                .write(args.mean.rows(first, rows)?)
                .write(args.rstd.rows(first, rows)?)
                .run(Grid::Each(rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_layernorm_backward(&self, args: LayerNormBackward<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "layernorm_backward";
        let [t, h] = args.check()?;
        roomy(OP, args.workspace, workspace(t, h))?;
        let workspace = flat(args.workspace)?;
        for (first, rows) in self.row_pieces(t, h) {
            let (rows_per_block, blocks) = blocks(rows);
            let partial = workspace.rows(0, 2 * blocks * h)?;
            let params = kernels::LayerNormBackward {
                rows: rows as u32,
                h: h as u32,
                rows_per_block: rows_per_block as u32,
                blocks: blocks as u32,
            };
            self.call(OP, params)
                .define("ACCUMULATE", args.accumulate)
                .define("ROW_LANES", self.row_lanes(h))
                .wide(h % 4 == 0)
                .read_wide(args.x.rows(first, rows)?)
                .read_wide(args.gamma)
                .read(args.mean.rows(first, rows)?)
                .read(args.rstd.rows(first, rows)?)
                .read_wide(args.dy.rows(first, rows)?)
                .write_wide(args.dx.rows(first, rows)?)
                .write_wide(partial)
                .run(Grid::Each(blocks))?;
            self.call(OP, kernels::LayerNormParams { h: h as u32, blocks: blocks as u32 })
                .wide(h % 4 == 0)
                .read_wide(partial)
                .write_wide(args.dgamma)
                .write_wide(args.dbeta)
                .run(Grid::Columns(h, 1))?;
        }
        Ok(())
    }
}
