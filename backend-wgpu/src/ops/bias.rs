use backend::Result;
use backend::ops::{BiasAdd, BiasBackward, BiasDropoutResidual, BiasGelu};
use backend::philox::drop_below;

use super::halves;
use crate::backend::{WgpuBackend, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Sums over rows are made in at most this many blocks, of at least as many rows as [`BLOCK_ROWS`].
const BLOCKS: usize = 64;
const BLOCK_ROWS: usize = 32;

/// The most blocks of any number of rows up to `t`.
pub(crate) fn most_blocks(t: usize) -> usize {
    t.div_ceil(BLOCK_ROWS).min(BLOCKS)
}

/// Rows of a block, and blocks, of `rows` rows.
pub(crate) fn blocks(rows: usize) -> (usize, usize) {
    let rows_per_block = rows.div_ceil(BLOCKS).max(BLOCK_ROWS);
    (rows_per_block, rows.div_ceil(rows_per_block))
}

pub(crate) fn workspace(t: usize, n: usize) -> usize {
    most_blocks(t) * n
}

impl WgpuBackend {
    pub(crate) fn do_bias_add(&self, args: BiasAdd<'_, WgpuBuffer>) -> Result<()> {
        let [t, n] = args.check()?;
        for (first, rows) in self.row_pieces(t, n) {
            self.call("bias_add", kernels::BiasAdd { rows: rows as u32, n: n as u32 })
                .wide(n % 4 == 0)
                .write_wide(args.x.rows(first, rows)?)
                .read_wide(args.bias)
                .run(Grid::Columns(n, rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_bias_gelu(&self, args: BiasGelu<'_, WgpuBuffer>) -> Result<()> {
        let [t, n] = args.check()?;
        for (first, rows) in self.row_pieces(t, n) {
            self.call("bias_gelu", kernels::BiasGelu { rows: rows as u32, n: n as u32 })
                .wide(n % 4 == 0)
                .write_wide(args.x.rows(first, rows)?)
                .read_wide(args.bias)
                .write_wide(args.y.rows(first, rows)?)
                .run(Grid::Columns(n, rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_bias_dropout_residual(&self, args: BiasDropoutResidual<'_, WgpuBuffer>) -> Result<()> {
        let [t, n] = args.check()?;
        for (first, rows) in self.row_pieces(t, n) {
            let mut params: kernels::BiasDropoutResidual = bytemuck::Zeroable::zeroed();
            (params.rows, params.n) = (rows as u32, n as u32);
            if let Some(mask) = &args.mask {
                [params.seed_low, params.seed_high] = halves(mask.stream.seed);
                [params.stream_low, params.stream_high] = halves(mask.stream.stream);
                [params.first_low, params.first_high] = halves(mask.first + (first * n) as u64);
                (params.threshold, params.keep_scale) = (drop_below(mask.p), mask.scale());
            }
            self.call("bias_dropout_residual", params)
                .define("DROPOUT", args.mask.is_some())
                .wide(n % 4 == 0)
                .read_wide(args.x.rows(first, rows)?)
                .read_wide(args.bias)
                .read_wide(args.residual.rows(first, rows)?)
                .write_wide(args.y.rows(first, rows)?)
                .run(Grid::Columns(n, rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_bias_backward(&self, args: BiasBackward<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "bias_backward";
        let [t, n] = args.check()?;
        roomy(OP, args.workspace, workspace(t, n))?;
        let workspace = args.workspace.reshape([args.workspace.len()])?;
        for (first, rows) in self.row_pieces(t, n) {
            let (rows_per_block, blocks) = blocks(rows);
            let partial = workspace.rows(0, blocks * n)?;
            let params = kernels::BiasPartial {
                rows: rows as u32,
                n: n as u32,
                rows_per_block: rows_per_block as u32,
            };
            self.call(OP, params)
                .wide(n % 4 == 0)
                .read_wide(args.dy.rows(first, rows)?)
                .write_wide(partial)
                .run(Grid::Blocks(n, blocks))?;
            self.call(OP, kernels::BiasBackward { n: n as u32, blocks: blocks as u32 })
                .wide(n % 4 == 0)
                .read_wide(partial)
                .write_wide(args.dbias)
                .run(Grid::Columns(n, 1))?;
        }
        Ok(())
    }
}
