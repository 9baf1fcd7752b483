use backend::ops::{Attention, AttentionBackward, AttentionDims, AttentionDropout};
use backend::philox::drop_below;
use backend::{Error, Result};

use super::halves;
use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Lanes of a workgroup of `attention/`.
const LANES: usize = 32;
/// Lanes of a workgroup of `attention/subgroup_*.wgsl`.
const SUBGROUP: usize = 8;
/// The largest head that those kernels take: they are unrolled over it.
const SUBGROUP_HEAD: usize = 64;
/// The largest head whose row a lane can hold.
const MAX_HEAD: usize = 256;

pub(crate) fn workspace(b: usize, s: usize, a: usize) -> usize {
    b * s * a
}

/// The parameters that the three kernels share, for sequences from `first` of the microbatch on.
macro_rules! params {
    ($kernel:ident, $dims:expr, $scale:expr, $dropout:expr, $first:expr) => {{
        let (dims, dropout): (AttentionDims, Option<&AttentionDropout>) = ($dims, $dropout);
        let mut params: kernels::$kernel = bytemuck::Zeroable::zeroed();
        (params.s, params.a, params.d) = (dims.s as u32, dims.a as u32, dims.d as u32);
        params.scale = $scale;
        if let Some(dropout) = dropout {
            [params.seed_low, params.seed_high] = halves(dropout.stream.seed);
            [params.stream_low, params.stream_high] = halves(dropout.stream.stream);
            [params.first_low, params.first_high] = halves(dropout.first_sample + $first as u64);
            (params.threshold, params.keep_scale) = (drop_below(dropout.p), dropout.scale());
            (params.heads, params.first_head) = (dropout.heads as u32, dropout.first_head as u32);
        }
        params
    }};
}

impl WgpuBackend {
    /// Whether heads of that size go to the kernels for subgroups of eight.
    fn subgroup_attention(&self, d: usize) -> bool {
        self.subgroups && d <= SUBGROUP_HEAD
    }

    pub(crate) fn do_attention(&self, args: Attention<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        let AttentionDims { b, s, a, d } = dims;
        head_fits("attention", d)?;
        for (first, count) in self.row_pieces(b, s * a * 3 * d) {
            macro_rules! run {
                ($kernel:ident, $lanes:expr) => {
                    self.call("attention", params!($kernel, dims, args.scale, args.dropout.as_ref(), first))
                        .define("D4", d.div_ceil(4) as u32)
                        .define("DROPOUT", args.dropout.is_some())
                        .wide(d % 4 == 0)
                        .read_wide(args.qkv.rows(first, count)?)
                        .write_wide(args.out.rows(first, count)?)
                        .write(args.lse.rows(first, count)?)
                        .run(Grid::Exact([s.div_ceil($lanes), a, count]))?
                };
            }
            match self.subgroup_attention(d) {
                true => run!(SubgroupAttention, SUBGROUP),
                false => run!(Attention, LANES),
            }
        }
        Ok(())
    }

    pub(crate) fn do_attention_backward(&self, args: AttentionBackward<'_, WgpuBuffer>) -> Result<()> {
        const OP: &str = "attention_backward";
        let dims = args.check()?;
        let AttentionDims { b, s, a, d } = dims;
        head_fits(OP, d)?;
        roomy(OP, args.workspace, workspace(b, s, a))?;
        let delta = flat(args.workspace)?.rows(0, workspace(b, s, a))?.reshape([b, a, s])?;
        let (dropout, scale) = (args.dropout.as_ref(), args.scale);
        for (first, count) in self.row_pieces(b, s * a * 3 * d) {
            let (qkv, dqkv) = (args.qkv.rows(first, count)?, args.dqkv.rows(first, count)?);
            let (lse, dout) = (args.lse.rows(first, count)?, args.dout.rows(first, count)?);
            let delta = delta.rows(first, count)?;
            macro_rules! run {
                ($query:ident, $key:ident, $lanes:expr) => {{
                    let grid = Grid::Exact([s.div_ceil($lanes), a, count]);
                    self.call(OP, params!($query, dims, scale, dropout, first))
                        .define("D4", d.div_ceil(4) as u32)
                        .define("DROPOUT", dropout.is_some())
                        .wide(d % 4 == 0)
                        .read_wide(qkv)
                        .read_wide(args.out.rows(first, count)?)
                        .read(lse)
                        .read_wide(dout)
                        .write_wide(dqkv)
                        .write(delta)
                        .run(grid)?;
                    self.call(OP, params!($key, dims, scale, dropout, first))
                        .define("D4", d.div_ceil(4) as u32)
                        .define("DROPOUT", dropout.is_some())
                        .wide(d % 4 == 0)
                        .read_wide(qkv)
                        .read(lse)
                        .read_wide(dout)
                        .write_wide(dqkv)
                        .read(delta)
                        .run(grid)?;
                }};
            }
            match self.subgroup_attention(d) {
                true => run!(SubgroupAttentionQuery, SubgroupAttentionKey, SUBGROUP),
                false => run!(AttentionQuery, AttentionKey, LANES),
            }
        }
        Ok(())
    }
}

fn head_fits(op: &'static str, d: usize) -> Result<()> {
    match d <= MAX_HEAD {
        true => Ok(()),
        false => Err(Error::Limit {
            op,
            what: "a head's size".to_owned(),
            limit: "numbers that a lane holds of a head",
            allowed: MAX_HEAD as u64,
            asked: d as u64,
            remedy: "give the model more heads",
        }),
    }
}
