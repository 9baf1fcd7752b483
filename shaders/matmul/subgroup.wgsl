// Matrix product for a processor that plays a GPU: c = alpha op(a) op(b) + beta c. A workgroup is one subgroup of eight lanes and makes 32 rows by 32 columns; lane l
// has columns l, l + 8, … and loads rows l, l + 8, …, which subgroupBroadcast hands to the others. There a load that differs from lane to lane costs as much as
// some hundred products, and registers are plentiful (they are the processor's first cache), so that a tile is as large as its compilation may last.
// Rows and columns past the edge are read as the last ones and not stored. Sums run over k in order.
// K4: what lies contiguously in k comes in fours. TRANS_A: a is [k, m]. TRANS_B: b is [n, k]. BETA: c is read. BIAS: a row is added to every row.
// GELU: c keeps what the activation, into y, was applied to. Needs subgroups of exactly eight lanes.
// Operands: a [batch, m, k] read · b [batch, k, n] read · c [batch, m, n] write · bias [n] read (BIAS) · y [m, n] write (GELU).
// Dispatch: (n / 32, m / 32, batch), rounded up.
#define T f32
#define ROW_BLOCKS 4
#define COLUMN_BLOCKS 4
#define TA f32
#define TB f32
#if K4
#if !TRANS_A
#define TA vec4<f32>
#endif
#if TRANS_B
#define TB vec4<f32>
#endif
#endif
#operand a read TA
#operand b read TB
#operand c write f32
#if BIAS
#operand bias read f32
#endif
#if GELU
#operand y write f32
#endif
struct Params {
    a_at: u32, b_at: u32, c_at: u32,
#if BIAS
    bias_at: u32,
#endif
#if GELU
    y_at: u32,
#endif
    m: u32, n: u32, k: u32, alpha: f32, beta: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

#include "matmul/finish.wgsl"

fn store(batch: u32, row: u32, column: u32, sum: f32) {
    if (row < p.m && column < p.n) {
        finish((batch * p.m + row) * p.n + column, column, p.alpha * sum);
    }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let row = group.y * (8u * ROW_BLOCKS);
    let column = group.x * (8u * COLUMN_BLOCKS) + lane;
    let k = p.k;
    let a_start = group.z * p.m * k;
    let b_start = group.z * k * p.n;
#if TRANS_A
    let a_row = 1u;
    let a_step = p.m;
#else
    let a_row = k;
    let a_step = 1u;
#endif
#if TRANS_B
    let b_column = k;
    let b_step = 1u;
#else
    let b_column = 1u;
    let b_step = p.n;
#endif
#for R ROW_BLOCKS
    let a{R}_at = a_start + min(row + 8u * {R}u + lane, p.m - 1u) * a_row;
#end
#for C COLUMN_BLOCKS
    let b{C}_at = b_start + min(column + 8u * {C}u, p.n - 1u) * b_column;
#end
    var left: f32;
#for R ROW_BLOCKS
#for L 8
#for C COLUMN_BLOCKS
    var sum{R}_{L}_{C} = 0.0;
#end
#end
#end
#if K4
#define STEPS 4
#else
#define STEPS 1
#endif
    for (var i = 0u; i < k; i += u32(STEPS)) {
#if K4
#if !TRANS_A
#for R ROW_BLOCKS
        let a{R} = load_a((a{R}_at + i) / 4u);
#end
#endif
#if TRANS_B
#for C COLUMN_BLOCKS
        let b{C} = load_b((b{C}_at + i) / 4u);
#end
#endif
#endif
#for S STEPS
#for C COLUMN_BLOCKS
#if K4
#if TRANS_B
        let right{S}_{C} = b{C}[{S}];
#else
        let right{S}_{C} = load_b(b{C}_at + (i + {S}u) * b_step);
#endif
#else
        let right{S}_{C} = load_b(b{C}_at + i * b_step);
#endif
#end
#for R ROW_BLOCKS
#if K4
#if TRANS_A
        let mine{S}_{R} = load_a(a{R}_at + (i + {S}u) * a_step);
#else
        let mine{S}_{R} = a{R}[{S}];
#endif
#else
        let mine{S}_{R} = load_a(a{R}_at + i * a_step);
#endif
#for L 8
        left = subgroupBroadcast(mine{S}_{R}, {L}u);
#for C COLUMN_BLOCKS
        sum{R}_{L}_{C} = fma(left, right{S}_{C}, sum{R}_{L}_{C});
#end
#end
#end
#end
    }
    // One place that stores, for all: unrolled, what a product ends with takes longer to compile than the product.
    var sums: array<f32, 8 * ROW_BLOCKS * COLUMN_BLOCKS>;
#for R ROW_BLOCKS
#for L 8
#for C COLUMN_BLOCKS
    sums[({R} * 8 + {L}) * COLUMN_BLOCKS + {C}] = sum{R}_{L}_{C};
#end
#end
#end
    for (var i = 0u; i < 8u * ROW_BLOCKS * COLUMN_BLOCKS; i++) {
        store(group.z, row + i / COLUMN_BLOCKS, column + 8u * (i % COLUMN_BLOCKS), sums[i]);
    }
}
