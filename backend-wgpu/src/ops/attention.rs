use backend::Result;
use backend::ops::{Attention, AttentionBackward, AttentionDims, AttentionDropout};
use backend::philox::drop_below;
use backend::{Error, View};

use super::halves;
use crate::backend::{WgpuBackend, flat, roomy};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Rows of a workgroup of `attention/tile.wgsl`.
const TILE: usize = 32;
/// Vectors of four of a slice there.
const SLICE: usize = 8;
/// The largest head that it takes: a lane keeps a part of a row of each of two results.
const MAX_HEAD: usize = 256;
/// Lanes of a workgroup of `attention/subgroup_*.wgsl`.
const SUBGROUP: usize = 8;
/// The largest head that those kernels take: they are unrolled over it. Of single elements that is a long compilation, so heads that are no whole vectors go to
/// the other family.
const SUBGROUP_HEAD: usize = 160;
/// Vectors of four that a lane there keeps of each of its operands and results, over all of its rows.
const SUBGROUP_ROW: usize = 64;
/// Multiply-adds of one dispatch at the most, if one block of rows does not have more: a quarter of a second at a tenth of a teraflop, and no driver's watchdog
/// waits for less than two. A causal mask leaves about half of them to do.
pub(crate) const MOST_PRODUCTS: u64 = 1 << 34;

pub(crate) fn workspace(b: usize, s: usize, a: usize) -> usize {
    b * s * a
}

/// A dispatch's share of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// First sequence, head and block of rows.
    pub at: [usize; 3],
    /// How many of each.
    pub count: [usize; 3],
}

impl Share {
    /// What the dispatch sees of a view whose rows are sequences.
    fn sequences<'v>(&self, view: View<'v, WgpuBuffer>) -> Result<View<'v, WgpuBuffer>> {
        view.rows(self.at[0], self.count[0])
    }
}

/// Cuts sequences, heads and blocks of rows (`extents`) so that no share has more than `most` blocks, or than one: whole sequences while they fit,
/// else whole heads, else blocks.
pub(crate) fn shares(extents: [usize; 3], most: usize) -> Vec<Share> {
    let [b, a, blocks] = extents;
    let most = most.max(1);
    let count = [(most / (a * blocks)).clamp(1, b), (most / blocks).clamp(1, a), most.min(blocks)];
    let pieces = |axis: usize| {
        let step = count[axis];
        (0..extents[axis]).step_by(step).map(move |at| (at, step.min(extents[axis] - at)))
    };
    let mut all = Vec::new();
    for (first, sequences) in pieces(0) {
        for (head, heads) in pieces(1) {
            for (block, blocks) in pieces(2) {
                all.push(Share { at: [first, head, block], count: [sequences, heads, blocks] });
            }
        }
    }
    all
}

/// The parameters that the kernels share, for a share of the call.
macro_rules! params {
    ($kernel:ident, $call:expr, $share:expr) => {{
        let (call, share): (&Call<'_>, Share) = ($call, $share);
        let mut params: kernels::$kernel = bytemuck::Zeroable::zeroed();
        (params.s, params.a, params.d) = (call.dims.s as u32, call.dims.a as u32, call.dims.d as u32);
        params.scale = call.scale;
        (params.head_at, params.block_at) = (share.at[1] as u32, share.at[2] as u32);
        if let Some(dropout) = call.dropout {
            [params.seed_low, params.seed_high] = halves(dropout.stream.seed);
            [params.stream_low, params.stream_high] = halves(dropout.stream.stream);
            [params.first_low, params.first_high] = halves(dropout.first_sample + share.at[0] as u64);
            (params.threshold, params.keep_scale) = (drop_below(dropout.p), dropout.scale());
            (params.heads, params.first_head) = (dropout.heads as u32, dropout.first_head as u32);
        }
        params
    }};
}

/// What the kernels of a call have in common.
struct Call<'a> {
    op: &'static str,
    dims: AttentionDims,
    scale: f32,
    dropout: Option<&'a AttentionDropout>,
}

/// Runs a kernel of either family over the shares of a call: `$products` products of rows, columns and the head's size, `$kept` rows of a head that a lane keeps
/// for each of its own, `$operands` what it reads and writes of a share.
macro_rules! run {
    ($backend:expr, $call:expr, [$tile:ident, $subgroup:ident], $products:literal, $kept:literal, |$of:ident, $launch:ident| $operands:expr) => {{
        let (backend, call): (&WgpuBackend, &Call<'_>) = ($backend, $call);
        let AttentionDims { b, s, a, d } = call.dims;
        let vectors = d.div_ceil(4);
        // By the head alone and not by where operands begin: the families do not add in the same order.
        let subgroup = backend.subgroups && d <= SUBGROUP_HEAD && d % 4 == 0;
        let lane_rows = (SUBGROUP_ROW * 2 / $kept / vectors).clamp(1, 4);
        let block = if subgroup { SUBGROUP * lane_rows } else { TILE };
        let most = backend.most_products / ($products * (block * s * d) as u64).max(1);
        for (first, sequences) in backend.row_pieces(b, s * a * 3 * d) {
            for mut share in shares([sequences, a, s.div_ceil(block)], most as usize) {
                share.at[0] += first;
                let $of = share;
                let [sequences, heads, blocks] = share.count;
                let grid = Grid::Exact([blocks, heads, sequences]);
                if subgroup {
                    let $launch = backend
                        .call(call.op, params!($subgroup, call, share))
                        .define("D4", vectors as u32)
                        .define("ROWS", lane_rows as u32)
                        .define("DROPOUT", call.dropout.is_some())
                        .wide(d % 4 == 0);
                    $operands.run(grid)?;
                } else {
                    let $launch = backend
                        .call(call.op, params!($tile, call, share))
                        .define("SLICES", vectors.div_ceil(SLICE) as u32)
                        .define("DROPOUT", call.dropout.is_some())
                        .wide(d % 4 == 0);
                    $operands.run(grid)?;
                }
            }
        }
    }};
}

impl WgpuBackend {
    pub(crate) fn do_attention(&self, args: Attention<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        let call = &Call { op: "attention", dims, scale: args.scale, dropout: args.dropout.as_ref() };
        if empty(call)? {
            return Ok(());
        }
        run!(self, call, [Attention, SubgroupAttention], 2, 2, |of, launch| launch
            .read_wide(of.sequences(args.qkv)?)
            .write_wide(of.sequences(args.out)?)
            .write(of.sequences(args.lse)?));
        Ok(())
    }

    pub(crate) fn do_attention_backward(&self, args: AttentionBackward<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        let AttentionDims { b, s, a, .. } = dims;
        let call =
            &Call { op: "attention_backward", dims, scale: args.scale, dropout: args.dropout.as_ref() };
        roomy(call.op, args.workspace, workspace(b, s, a))?;
        if empty(call)? {
            return Ok(());
        }
        let delta = flat(args.workspace)?.rows(0, workspace(b, s, a))?.reshape([b, a, s])?;
        run!(self, call, [AttentionQuery, SubgroupAttentionQuery], 3, 2, |of, launch| launch
            .read_wide(of.sequences(args.qkv)?)
            .read_wide(of.sequences(args.out)?)
            .read(of.sequences(args.lse)?)
            .read_wide(of.sequences(args.dout)?)
            .write_wide(of.sequences(args.dqkv)?)
            .write(of.sequences(delta)?));
        run!(self, call, [AttentionKey, SubgroupAttentionKey], 4, 4, |of, launch| launch
            .read_wide(of.sequences(args.qkv)?)
            .read(of.sequences(args.lse)?)
            .read_wide(of.sequences(args.dout)?)
            .write_wide(of.sequences(args.dqkv)?)
            .read(of.sequences(delta)?));
        Ok(())
    }
}

/// Whether there is nothing to do.
fn empty(call: &Call<'_>) -> Result<bool> {
    let AttentionDims { b, s, a, d } = call.dims;
    match d <= MAX_HEAD {
        true => Ok(b * s * a * d == 0),
        false => Err(Error::Limit {
            op: call.op,
            what: "a head's size".to_owned(),
            limit: "numbers that a lane holds of a head",
            allowed: MAX_HEAD as u64,
            asked: d as u64,
            remedy: "give the model more heads",
        }),
    }
}
