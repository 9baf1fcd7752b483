use backend::ops::{AttentionCached, AttentionCachedDims};
use backend::{Error, Result};

use crate::backend::CudaBackend;
use crate::launch::{at, extent, of};
use crate::memory::CudaBuffer;

/// The largest head of the kernel.
const LARGEST: usize = 256;
/// Rows of a block: a warp each.
const WARPS: u32 = 4;

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    qkv: u64,
    places: u64,
    cache: u64,
    out: u64,
    n: u64,
    s: u64,
    scale: f32,
    t: u32,
    a: u32,
    d: u32,
}

impl CudaBackend {
    pub(crate) fn do_attention_cached(&self, args: AttentionCached<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "attention_cached";
        let AttentionCachedDims { t, a, d, n, s } = args.check()?;
        if d > LARGEST {
            return Err(Error::Limit {
                op: OP,
                what: "a head".to_owned(),
                limit: "largest head size",
                allowed: LARGEST as u64,
                asked: d as u64,
                remedy: "take more heads",
            });
        }
        extent(OP, "a token", 3 * a * d)?;
        let params = Params {
            qkv: at(args.qkv),
            places: at(args.places),
            cache: at(args.cache),
            out: at(args.out),
            n: n as u64,
            s: s as u64,
            scale: args.scale,
            t: extent(OP, "tokens", t)?,
            a: extent(OP, "heads", a)?,
            d: extent(OP, "a head", d)?,
        };
        let variant = of("attention_cached.cu", args.qkv.dtype());
        self.launch(OP, (variant, "cache_append"), [params.t, 1, 1], 128, params)?;
        self.launch(OP, (variant, OP), [params.t.div_ceil(WARPS), params.a, 1], 128, params)
    }
}
