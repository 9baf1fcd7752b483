//! The kernels: each one's file, the variants that it has, and its parameters as the host lays them out.
//!
//! A shader's `Params` is the operands' offsets, in the order of its `#operand` lines, followed by the fields given here. A test holds both sides
//! against each other in every variant.

use bytemuck::{Pod, Zeroable};

/// A shader file and what the host knows of it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Path below `shaders/`.
    pub path: &'static str,
    /// What may be defined as 1.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test of all variants"))]
    pub flags: &'static [&'static str],
    /// What is defined as a number, and numbers that stand for all.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test of all variants"))]
    pub constants: &'static [(&'static str, &'static [u32])],
    /// Name, type and offset of each parameter.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test of all variants"))]
    pub fields: &'static [(&'static str, &'static str, usize)],
}

/// The parameters of a kernel.
pub(crate) trait Params: Pod {
    /// The kernel.
    const KERNEL: &'static Kernel;
}

macro_rules! kernels {
    ($($name:ident $path:literal [$($flag:literal)*] [$($constant:literal = $values:expr)*] { $($field:ident: $type:ident,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Pod, Zeroable)]
            pub(crate) struct $name { $(pub $field: $type,)* }

            impl Params for $name {
                const KERNEL: &'static Kernel = {
                    static KERNEL: Kernel = Kernel {
                        path: $path,
                        flags: &[$($flag),*],
                        constants: &[$(($constant, $values)),*],
                        fields: &[$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field))),*],
                    };
                    &KERNEL
                };
            }
        )*

        /// Every kernel.
        #[cfg(test)]
        pub(crate) static ALL: &[&Kernel] = &[$($name::KERNEL),*];
    };
}

kernels! {
    Fill "elementwise/fill.wgsl" ["WIDE"] [] { n: u32, bits: u32, }
    Copy "elementwise/copy.wgsl" ["WIDE"] [] { n: u32, }
    Cast "elementwise/cast.wgsl" ["WIDE"] [] { n: u32, }
    Scale "elementwise/scale.wgsl" ["WIDE"] [] { n: u32, alpha: f32, }
    Add "elementwise/add.wgsl" ["WIDE"] [] { n: u32, alpha: f32, }
    Gelu "gelu/forward.wgsl" ["WIDE"] [] { n: u32, }
    GeluBackward "gelu/backward.wgsl" ["WIDE"] [] { n: u32, }
    Dropout "dropout/dropout.wgsl" ["WIDE"] [] {
        n: u32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32,
    }
    BiasAdd "bias/add.wgsl" ["WIDE"] [] { rows: u32, n: u32, }
    BiasGelu "bias/gelu.wgsl" ["WIDE"] [] { rows: u32, n: u32, }
    BiasDropoutResidual "bias/dropout_residual.wgsl" ["WIDE" "DROPOUT"] [] {
        rows: u32, n: u32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32,
    }
    BiasPartial "bias/backward_partial.wgsl" ["WIDE"] [] { rows: u32, n: u32, rows_per_block: u32, }
    BiasBackward "bias/backward.wgsl" ["WIDE"] [] { n: u32, blocks: u32, }
    LayerNorm "layernorm/forward.wgsl" ["WIDE"] ["ROW_LANES" = &[8, 64, 256]] { rows: u32, h: u32, eps: f32, }
    LayerNormBackward "layernorm/backward.wgsl" ["WIDE" "ACCUMULATE"] ["ROW_LANES" = &[8, 64, 256]] {
        rows: u32, h: u32, rows_per_block: u32, blocks: u32,
    }
    LayerNormParams "layernorm/backward_params.wgsl" ["WIDE"] [] { h: u32, blocks: u32, }
    CrossEntropyMax "cross_entropy/max.wgsl" ["WIDE"] ["ROW_LANES" = &[8, 64, 256]] { rows: u32, v: u32, }
    CrossEntropySums "cross_entropy/sums.wgsl" ["WIDE"] ["ROW_LANES" = &[8, 64, 256]] { rows: u32, v: u32, first_column: u32, }
    CrossEntropyLoss "cross_entropy/loss.wgsl" ["WIDE"] [] { n: u32, }
    CrossEntropyBackward "cross_entropy/backward.wgsl" ["WIDE"] [] { rows: u32, v: u32, first_column: u32, scale: f32, }
    Embedding "embedding/forward.wgsl" ["WIDE"] [] { rows: u32, h: u32, v: u32, first_of_table: u32, }
    EmbeddingLinks "embedding/backward_links.wgsl" [] ["OWNER_LANES" = &[8, 64]] {
        t: u32, v: u32, first_of_table: u32, owners: u32,
    }
    EmbeddingBackward "embedding/backward.wgsl" ["WIDE"] [] { t: u32, v: u32, h: u32, first_of_table: u32, }
    AdamW "adamw/adamw.wgsl" ["WIDE"] [] {
        n: u32, lr: f32, beta1: f32, beta2: f32, rest1: f32, rest2: f32, eps: f32, weight_decay: f32, grad_scale: f32,
        correction1: f32, correction2: f32,
    }
    SumPartial "sum/partial.wgsl" ["WIDE"] ["ROW_LANES" = &[8, 64, 256]] { n: u32, spans: u32, span: u32, }
    SumFinal "sum/final.wgsl" [] ["ROW_LANES" = &[8, 64, 256]] { spans: u32, alpha: f32, beta: f32, }
    BlockSquares "sum/block_squares.wgsl" ["WIDE"] ["ROW_LANES" = &[8, 64, 256]] { n: u32, blocks: u32, block: u32, }
    Reduce "reduce/reduce.wgsl" ["WIDE" "MAX"] [] { n: u32, }
    MatmulRegisters "matmul/registers.wgsl" ["WIDE" "K4" "TRANS_A" "TRANS_B" "BETA" "BIAS" "GELU"] [] {
        m: u32, n: u32, k: u32, first_matrix: u32, first_row: u32, first_column: u32, alpha: f32, beta: f32,
    }
    MatmulSubgroup "matmul/subgroup.wgsl" ["WIDE" "K4" "TRANS_A" "TRANS_B" "BETA" "BIAS" "GELU"] ["LANES" = &[4, 8, 16, 32]] {
        m: u32, n: u32, k: u32, first_matrix: u32, first_row: u32, first_column: u32, alpha: f32, beta: f32,
    }
    MatmulTiled "matmul/tiled.wgsl" ["TRANS_A" "TRANS_B" "BETA" "BIAS" "GELU"] ["TILE" = &[4, 8]] {
        m: u32, n: u32, k: u32, first_matrix: u32, first_row: u32, first_column: u32, alpha: f32, beta: f32,
    }
    MatmulCooperative "matmul/cooperative.wgsl" ["HALF" "TRANS_A" "TRANS_B" "BETA" "BIAS" "GELU"] ["LANES" = &[32, 64]] {
        m: u32, n: u32, k: u32, first_matrix: u32, first_row: u32, first_column: u32, alpha: f32, beta: f32,
    }
    Attention "attention/forward.wgsl" ["WIDE" "DROPOUT"] ["SLICES" = &[1, 2, 5]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
    CacheAppend "attention/cache_append.wgsl" ["WIDE"] [] { rows: u32, n: u32, s: u32, a: u32, d: u32, }
    AttentionCached "attention/cached.wgsl" ["WIDE"] ["SLICES" = &[1, 2]] { n: u32, s: u32, a: u32, d: u32, scale: f32, }
    AttentionQuery "attention/backward_query.wgsl" ["WIDE" "DROPOUT"] ["SLICES" = &[1, 2, 5]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
    AttentionKey "attention/backward_key.wgsl" ["WIDE" "DROPOUT"] ["SLICES" = &[1, 2, 5]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
    SubgroupAttention "attention/subgroup_forward.wgsl" ["WIDE" "DROPOUT"] ["D4" = &[1, 3] "ROWS" = &[1, 2, 4]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
    SubgroupAttentionQuery "attention/subgroup_backward_query.wgsl" ["WIDE" "DROPOUT"] ["D4" = &[1, 3] "ROWS" = &[1, 2, 4]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
    SubgroupAttentionKey "attention/subgroup_backward_key.wgsl" ["WIDE" "DROPOUT"] ["D4" = &[1, 3] "ROWS" = &[1, 2, 4]] {
        s: u32, a: u32, d: u32, scale: f32,
        seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
        threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
    }
}

/// The inputs and outputs that a [`Reduce`] has, as definitions.
pub(crate) const REDUCE_INPUTS: [&str; 8] =
    ["INPUT0", "INPUT1", "INPUT2", "INPUT3", "INPUT4", "INPUT5", "INPUT6", "INPUT7"];
/// See [`REDUCE_INPUTS`].
pub(crate) const REDUCE_OUTPUTS: [&str; 8] =
    ["OUTPUT0", "OUTPUT1", "OUTPUT2", "OUTPUT3", "OUTPUT4", "OUTPUT5", "OUTPUT6", "OUTPUT7"];

#[cfg(test)]
pub(crate) mod tests;
