// Causal attention, forward, softmax in one pass over the keys (Dao et al. 2022): a row keeps its running maximum, the sum of its weights and the weighted
// values, which shrink where the maximum grows. No [s, s] matrix is kept. Tiles as in tile.wgsl.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] write · lse [b, a, s] write.
// Dispatch: (blocks of 32 queries, heads, b); the longest rows go first.
#include "attention/common.wgsl"
#include "attention/tile.wgsl"
#operand qkv read T
#operand out write T
#operand lse write f32
struct Params {
    qkv_at: u32, out_at: u32, lse_at: u32,
#include "attention/fields.wgsl"
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(TILE_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let block = (p.block_at + groups.x - 1u - group.x) * TILE;
    let end = min(block + TILE, p.s);
    let head = p.head_at + group.y;
    let b = group.z;
    let q = vec4<u32>(block + 4u * ty) + vec4<u32>(0u, 1u, 2u, 3u);
    var highest = vec4<f32>(MASKED);
    // Of this lane's columns.
    var total = vec4<f32>(0.0);
#for N SLICES
    var sum{N} = mat4x4<f32>();
#end
    for (var first = 0u; first < end; first += TILE) {
        var score = mat4x4<f32>();
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            rows[slot(i, tx)] = p.scale * part_qkv(b, block + i, head, 0u, 8u * {N}u + tx);
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 1u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        score = products(tx, ty, score);
        workgroupBarrier();
#end
        let k = first + 4u * tx;
        var peak: vec4<f32>;
#for I 4
        score[{I}] = select(vec4<f32>(MASKED), score[{I}], vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(q[{I}]));
        peak[{I}] = max(max(score[{I}].x, score[{I}].y), max(score[{I}].z, score[{I}].w));
#end
        let higher = max(highest, highest_across(tx, ty, peak));
        let shrink = exp(highest - higher);
        highest = higher;
#for I 4
        var weight{I} = exp(score[{I}] - higher[{I}]);
        total[{I}] = total[{I}] * shrink[{I}] + ((weight{I}.x + weight{I}.y) + (weight{I}.z + weight{I}.w));
#if DROPOUT
        weight{I} = select(vec4<f32>(0.0), weight{I} * p.keep_scale, kept4(b, head, q[{I}], k));
#endif
        weights[slot(4u * ty + {I}u, tx)] = weight{I};
#for N SLICES
        sum{N}[{I}] *= shrink[{I}];
#end
#end
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 2u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        sum{N} = weighted(tx, ty, sum{N});
        workgroupBarrier();
#end
    }
    let all = across(tx, ty, total);
#for I 4
    if (q[{I}] < p.s) {
#for N SLICES
        let c{N} = 4u * (8u * {N}u + tx);
        if (c{N} < p.d) {
            store4_out(out_row(b, q[{I}], head) + c{N}, p.d - c{N}, sum{N}[{I}] / all[{I}]);
        }
#end
        if (tx == 0u) {
            store_lse(statistic(b, q[{I}], head), highest[{I}] + log(all[{I}]));
        }
    }
#end
}
