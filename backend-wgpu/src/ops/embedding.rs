use backend::Result;
use backend::ops::{Embedding, EmbeddingBackward};

use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Lanes of a workgroup of `embedding/backward_links.wgsl`, and how many of them there are: they share the rows out, and each looks at all tokens. Few where
/// lanes are a processor's.
fn owners(software: bool) -> [usize; 2] {
    if software { [8, 2] } else { [64, 64] }
}

/// Tokens that one dispatch looks through: its work is bounded, and lavapipe ends a loop after 65,535 rounds, whatever is left.
const MOST_TOKENS: usize = 32_768;

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
        // One piece after the other adds the tokens in their order all the same.
        for first in (0..t).step_by(MOST_TOKENS) {
            let count = MOST_TOKENS.min(t - first);
            let (tokens, dy) = (args.tokens.rows(first, count)?, args.dy.rows(first, count)?);
            let links = flat(args.workspace)?.rows(0, workspace(count, v))?;
            self.do_fill(links.rows(0, v)?, 0.0)?;
            let [lanes, groups] = owners(self.device.info.software);
            let (t, v, first_of_table) = (count as u32, v as u32, args.first_row as u32);
            let owners = (lanes * groups) as u32;
            self.call(OP, kernels::EmbeddingLinks { t, v, first_of_table, owners })
                .define("OWNER_LANES", lanes as u32)
                .read(tokens)
                .write(links)
                .run(Grid::Exact([groups, 1, 1]))?;
            self.call(OP, kernels::EmbeddingBackward { t, v, h: h as u32, first_of_table })
                .wide(h % 4 == 0)
                .read_wide(dy)
                .read(tokens)
                .read(links)
                .write_wide(args.dtable)
                .run(Grid::Blocks(h, count))?;
        }
        Ok(())
    }
}
