use backend::Result;
use backend::ops::{Embedding, EmbeddingBackward};

use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Lanes of `embedding/backward_links.wgsl`.
const LINK_LANES: usize = 64;

pub(crate) fn workspace(t: usize, v: usize) -> usize {
    t + v
}

impl WgpuBackend {
    pub(crate) fn do_embedding(&self, args: Embedding<'_, WgpuBuffer>) -> Result<()> {
        let [t, v, h] = args.check()?;
        for (first, rows) in self.row_pieces(t, h) {
            let params = kernels::Embedding {
                rows: rows as u32,
                h: h as u32,
                v: v as u32,
                first_of_table: args.first_row as u32,
            };
            self.call("embedding", params)
                .wide(h % 4 == 0)
                .read(args.tokens.rows(first, rows)?)
                .read_wide(args.table)
                .write_wide(args.y.rows(first, rows)?)
                .run(Grid::Columns(h, rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_embedding_backward(&self, args: EmbeddingBackward<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "embedding_backward";
        let [t, v, h] = args.check()?;
        roomy(OP, args.workspace, workspace(t, v))?;
        if t == 0 || v == 0 || h == 0 {
            return Ok(());
        }
        let links = flat(args.workspace)?.rows(0, workspace(t, v))?;
        let params =
            kernels::EmbeddingLinks { t: t as u32, v: v as u32, first_of_table: args.first_row as u32 };
        self.call(OP, params).read(args.tokens).write(links).run(Grid::Exact([
            v.div_ceil(LINK_LANES),
            1,
            1,
        ]))?;
        self.call(OP, kernels::EmbeddingBackward { t: t as u32, v: v as u32, h: h as u32 })
            .wide(h % 4 == 0)
            .read_wide(args.dy)
            .read(links)
            .write_wide(args.dtable)
            .run(Grid::Blocks(h, v))
    }
}
