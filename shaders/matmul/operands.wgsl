// What all matrix products take: c = alpha op(a) op(b) + beta c, for each of a batch.
// WIDE: every contiguous axis is a multiple of four, and comes in vectors. TRANS_A: a is [k, m]. TRANS_B: b is [n, k].
// BETA: c is read. BIAS: a row is added to every row. GELU: c keeps what the activation, into y, was applied to.
#include "lib/wide.wgsl"
#operand a read T
#operand b read T
#operand c write T
#if BIAS
#operand bias read T
#endif
#if GELU
#operand y write T
#endif
struct Params {
    a_at: u32, b_at: u32, c_at: u32,
#if BIAS
    bias_at: u32,
#endif
#if GELU
    y_at: u32,
#endif
    m: u32, n: u32, k: u32, first_matrix: u32, first_row: u32, first_column: u32, alpha: f32, beta: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

// Four numbers of a, contiguous from `at`; past the edge, which `last` is the last place before, that place's number.
fn four_a(at: u32, last: u32) -> vec4<f32> {
#if WIDE
    return load_a(min(at, last) / 4u);
#else
    return vec4<f32>(load_a(min(at, last)), load_a(min(at + 1u, last)), load_a(min(at + 2u, last)), load_a(min(at + 3u, last)));
#endif
}

// The same of b.
fn four_b(at: u32, last: u32) -> vec4<f32> {
#if WIDE
    return load_b(min(at, last) / 4u);
#else
    return vec4<f32>(load_b(min(at, last)), load_b(min(at + 1u, last)), load_b(min(at + 2u, last)), load_b(min(at + 3u, last)));
#endif
}

// Elements row, column .. column + 4 of c, from their sums.
fn store(batch: u32, row: u32, column: u32, sum: vec4<f32>) {
    let at = (batch * p.m + row) * p.n + column;
#if WIDE
    if (row < p.m && column < p.n) {
        finish(at / 4u, column / 4u, p.alpha * sum);
    }
#else
#for J 4
    if (row < p.m && column + {J}u < p.n) {
        finish(at + {J}u, column + {J}u, p.alpha * sum[{J}]);
    }
#end
#endif
}

#include "matmul/finish.wgsl"
