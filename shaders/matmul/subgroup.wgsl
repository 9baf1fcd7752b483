// Matrix product for a processor that plays a GPU: c = alpha op(a) op(b) + beta c. A workgroup is one subgroup of LANES lanes and makes 32 rows by 4 LANES columns; a lane
// has four neighbouring columns, and its share of the rows' numbers, which subgroupBroadcast hands to the others. There a load that differs from lane to lane costs as
// much as some hundred products whether it brings one number or four, so all comes in fours; and registers are plentiful (they are the processor's first
// cache), so that a tile is as large as its compilation may last. A sum goes through four steps of k before the next one is taken up.
// Rows and columns past the edge are read as the last ones and not stored. Sums run over k in order.
// K4: k is a multiple of four. LANES: 4, 8, 16 or 32, and subgroups have exactly as many. READS: 32 / LANES. SPREAD: the smaller of LANES and 8. QUADS: 8 / SPREAD.
// Dispatch: (n / (4 LANES), m / 32, batch), rounded up; `first_…` of them are left out.
#if K4
#if TRANS_A
// Rows come in blocks of four.
#define BLOCKS
#endif
#endif
#include "matmul/operands.wgsl"

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let matrix = group.z + p.first_matrix;
    let row = (group.y + p.first_row) * 32u;
    let column = ((group.x + p.first_column) * LANES + lane) * 4u;
    let k = p.k;
    let a_start = matrix * p.m * k;
    let b_start = matrix * k * p.n;
#if TRANS_A
    let a_step = p.m;
#for H QUADS
    let quad{H} = a_start + row + ({H}u * SPREAD + lane % SPREAD) * 4u;
#end
#for B READS
    let a{B}_at = a_start + min(row + {B}u * LANES + lane, p.m - 1u);
#end
#else
    let a_step = 1u;
#for B READS
    let a{B}_at = a_start + min(row + {B}u * LANES + lane, p.m - 1u) * k;
#end
#endif
#if TRANS_B
#for C 4
    let b{C}_at = b_start + min(column + {C}u, p.n - 1u) * k;
#end
#endif
    var left: vec4<f32>;
    // Rows of the tile, in the order in which they are read.
#if BLOCKS
#for H QUADS
#for L SPREAD
#for J 4
    var sum{H}_{L}_{J} = vec4<f32>();
#end
#end
#end
#else
#for B READS
#for L LANES
    var sum{B}_{L} = vec4<f32>();
#end
#end
#endif
#if K4
    for (var i = 0u; i < k; i += 4u) {
#if TRANS_B
#for C 4
        let b{C} = four_b(b{C}_at + i, b{C}_at + k - 1u);
#end
#for S 4
        let right{S} = vec4<f32>(b0[{S}], b1[{S}], b2[{S}], b3[{S}]);
#end
#else
#for S 4
        let right{S} = four_b(b_start + (i + {S}u) * p.n + column, b_start + (i + {S}u) * p.n + p.n - 1u);
#end
#endif
#if BLOCKS
#for S 4
#for H QUADS
        let a{S}_{H} = four_a(quad{H} + (i + {S}u) * p.m, a_start + (i + {S}u) * p.m + p.m - 1u);
#end
#end
#for H QUADS
#for L SPREAD
#for J 4
#for S 4
        sum{H}_{L}_{J} = fma(vec4<f32>(subgroupBroadcast(a{S}_{H}[{J}], {L}u)), right{S}, sum{H}_{L}_{J});
#end
#end
#end
#end
#else
#for B READS
        let a{B} = four_a(a{B}_at + i, a{B}_at + k - 1u);
#end
#for B READS
#for L LANES
#for S 4
        sum{B}_{L} = fma(vec4<f32>(subgroupBroadcast(a{B}[{S}], {L}u)), right{S}, sum{B}_{L});
#end
#end
#end
#endif
    }
#else
    for (var i = 0u; i < k; i++) {
#if TRANS_B
#for C 4
        let b{C} = load_b(b{C}_at + i);
#end
        let right = vec4<f32>(b0, b1, b2, b3);
#else
        let right = four_b(b_start + i * p.n + column, b_start + i * p.n + p.n - 1u);
#endif
#for B READS
        let a{B} = load_a(a{B}_at + i * a_step);
#end
#for B READS
#for L LANES
        sum{B}_{L} = fma(vec4<f32>(subgroupBroadcast(a{B}, {L}u)), right, sum{B}_{L});
#end
#end
    }
#endif
    // One place that stores, for all: unrolled, what a product ends with takes longer to compile than the product.
    var sums: array<vec4<f32>, 32>;
#if BLOCKS
#for H QUADS
#for L SPREAD
#for J 4
    sums[({H} * SPREAD + {L}) * 4 + {J}] = sum{H}_{L}_{J};
#end
#end
#end
#else
#for B READS
#for L LANES
    sums[{B} * LANES + {L}] = sum{B}_{L};
#end
#end
#endif
    for (var i = 0u; i < 32u; i++) {
        store(matrix, row + i, column, sums[i]);
    }
}
