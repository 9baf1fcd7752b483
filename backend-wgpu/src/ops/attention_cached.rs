use backend::ops::{AttentionCached, AttentionCachedDims};
use backend::{Error, Result};

use crate::backend::WgpuBackend;
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Lanes of `attention/cached.wgsl`, and keys that it takes at a time.
const LANES: usize = 32;
/// The largest head that it takes: two vectors of four a lane.
const MAX_HEAD: usize = 256;
/// Rows of a dispatch at the most: a workgroup each.
const MOST_ROWS: usize = 32_768;
/// Rounds of a lane's loops at the most: the work of a dispatch is bounded, and lavapipe ends a loop after 65,535 rounds, whatever is left.
const MOST_ROUNDS: usize = 65_535;

impl WgpuBackend {
    pub(crate) fn do_attention_cached(&self, args: AttentionCached<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "attention_cached";
        let AttentionCachedDims { t, a, d, n, s } = args.check()?;
        let vectors = d.div_ceil(4);
        let longest = MOST_ROUNDS / (2 * LANES + vectors + 1) * LANES;
        for (what, limit, allowed, asked, remedy) in [
            (
                "a head's size",
                "numbers that a lane holds of a head",
                MAX_HEAD,
                d,
                "give the model more heads",
            ),
            ("a slot's tokens", "rounds of a shader's loops", longest, s, "make the cache's slots shorter"),
        ] {
            if asked > allowed {
                let (what, allowed, asked) = (what.to_owned(), allowed as u64, asked as u64);
                return Err(Error::Limit { op: OP, what, limit, allowed, asked, remedy });
            }
        }
        if t * a == 0 {
            return Ok(());
        }
        let [slots, tokens, heads, size] = [n, s, a, d].map(|extent| extent as u32);
        // Every row is in the cache before the first one reads it.
        if n * s > 0 {
            for (first, rows) in self.row_pieces(t, 3 * a * d) {
                let params =
                    kernels::CacheAppend { rows: rows as u32, n: slots, s: tokens, a: heads, d: size };
                self.call(OP, params)
                    .wide(d % 4 == 0)
                    .read_wide(args.qkv.rows(first, rows)?)
                    .read(args.places.rows(first, rows)?)
                    .write_wide(args.cache)
                    .run(Grid::Columns(8 * a * vectors, rows))?;
            }
        }
        for (first, rows) in self.row_pieces(t, 3 * a * d) {
            let end = first + rows;
            for first in (first..end).step_by(MOST_ROWS) {
                let rows = MOST_ROWS.min(end - first);
                let params =
                    kernels::AttentionCached { n: slots, s: tokens, a: heads, d: size, scale: args.scale };
                self.call(OP, params)
                    .define("SLICES", d.div_ceil(4 * LANES) as u32)
                    .wide(d % 4 == 0)
                    .read_wide(args.qkv.rows(first, rows)?)
                    .read(args.places.rows(first, rows)?)
                    .read_wide(args.cache)
                    .write_wide(args.out.rows(first, rows)?)
                    .run(Grid::Exact([rows, a, 1]))?;
            }
        }
        Ok(())
    }
}
