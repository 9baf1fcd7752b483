use backend::ops::{self, AttentionDims, AttentionDropout};
use backend::{Error, Result, View};

use super::dropout::Mask;
use crate::backend::CudaBackend;
use crate::kernels::Variant;
use crate::launch::{at, extent, of, roomy};
use crate::memory::CudaBuffer;

/// `dout . out` of each query.
pub(crate) fn workspace(b: usize, s: usize, a: usize) -> usize {
    b * s * a
}

/// The largest head of the kernels for any size.
const LARGEST: usize = 256;
/// Queries, or keys, of a block of those kernels: a warp each.
const WARPS: u32 = 4;
/// Of a block of the kernels on tensor cores.
const ROWS: u32 = 64;

/// The argument of the kernels on tensor cores.
#[repr(C)]
#[derive(Clone, Copy)]
struct FlashParams {
    attention: Params,
    wide: u32,
}

/// Bytes of shared memory that they need, forward and backward: tiles of keys and values, two of each; and the block's own rows.
fn flash_shared(d: usize) -> (u32, u32) {
    let line = 2 * (d + 8);
    let columns = if d <= 96 { 64 } else { 32 };
    let back = if d <= 64 {
        64
    } else if d <= 128 {
        32
    } else {
        16
    };
    ((4 * columns * line) as u32, ((2 * ROWS as usize + 4 * back) * line) as u32)
}

/// Whether 16 bytes may be fetched at once from wherever these views begin, and every row of them.
fn whole(views: &[View<'_, CudaBuffer>]) -> u32 {
    u32::from(views.iter().all(|view| at(*view).is_multiple_of(16)))
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    qkv: u64,
    out: u64,
    lse: u64,
    dout: u64,
    dqkv: u64,
    delta: u64,
    first_sample: u64,
    first_head: u64,
    heads: u64,
    mask: Mask,
    scale: f32,
    b: u32,
    s: u32,
    a: u32,
    d: u32,
    masked: u32,
}

impl Params {
    /// With the addresses left out.
    fn new(
        op: &'static str,
        dims: AttentionDims,
        scale: f32,
        dropout: Option<&AttentionDropout>,
    ) -> Result<Self> {
        let AttentionDims { b, s, a, d } = dims;
        if d > LARGEST {
            return Err(Error::Limit {
                op,
                what: "a head".to_owned(),
                limit: "largest head size",
                allowed: LARGEST as u64,
                asked: d as u64,
                remedy: "take more heads",
            });
        }
        // A token's stride and the grid are counted in 32 bits.
        extent(op, "a token", 3 * a * d)?;
        extent(op, "heads of all sequences", b * a)?;
        Ok(Self {
            qkv: 0,
            out: 0,
            lse: 0,
            dout: 0,
            dqkv: 0,
            delta: 0,
            first_sample: dropout.map_or(0, |dropout| dropout.first_sample),
            first_head: dropout.map_or(0, |dropout| dropout.first_head as u64),
            heads: dropout.map_or(0, |dropout| dropout.heads as u64),
            mask: dropout.map_or(Mask::NONE, |dropout| Mask::new(dropout.stream, dropout.p, dropout.scale())),
            scale,
            b: extent(op, "b", b)?,
            s: extent(op, "s", s)?,
            a: extent(op, "a", a)?,
            d: extent(op, "d", d)?,
            masked: u32::from(dropout.is_some()),
        })
    }

    /// Blocks of so many tokens of each head.
    fn grid(&self, tokens: u32) -> [u32; 3] {
        [self.s.div_ceil(tokens), self.b * self.a, 1]
    }
}

impl CudaBackend {
    pub(crate) fn do_attention(&self, args: ops::Attention<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "attention";
        let dims = args.check()?;
        let params = Params {
            qkv: at(args.qkv),
            out: at(args.out),
            lse: at(args.lse),
            ..Params::new(OP, dims, args.scale, args.dropout.as_ref())?
        };
        if let Some(variant) = Variant::flash(args.qkv.dtype(), dims.d, self.exact_attention) {
            let params = FlashParams { attention: params, wide: whole(&[args.qkv]) };
            let (shared, _) = flash_shared(dims.d);
            return self.launch_shared(
                OP,
                (variant, "flash"),
                params.attention.grid(ROWS),
                (128, shared),
                params,
            );
        }
        self.launch(OP, (of("attention.cu", args.qkv.dtype()), OP), params.grid(WARPS), 32 * WARPS, params)
    }

    pub(crate) fn do_attention_backward(&self, args: ops::AttentionBackward<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "attention_backward";
        let dims = args.check()?;
        roomy(OP, args.workspace, workspace(dims.b, dims.s, dims.a))?;
        let params = Params {
            qkv: at(args.qkv),
            out: at(args.out),
            lse: at(args.lse),
            dout: at(args.dout),
            dqkv: at(args.dqkv),
            delta: at(args.workspace),
            ..Params::new(OP, dims, args.scale, args.dropout.as_ref())?
        };
        let variant = of("attention.cu", args.qkv.dtype());
        self.launch(OP, (variant, "attention_delta"), params.grid(WARPS), 32 * WARPS, params)?;
        if let Some(variant) = Variant::flash(args.qkv.dtype(), dims.d, self.exact_attention) {
            let params = FlashParams { attention: params, wide: whole(&[args.qkv, args.dout]) };
            let (_, shared) = flash_shared(dims.d);
            for kernel in ["flash_queries", "flash_keys"] {
                let grid = params.attention.grid(ROWS);
                self.launch_shared(OP, (variant, kernel), grid, (128, shared), params)?;
            }
            return Ok(());
        }
        for kernel in ["attention_queries", "attention_keys"] {
            self.launch(OP, (variant, kernel), params.grid(WARPS), 32 * WARPS, params)?;
        }
        Ok(())
    }
}
