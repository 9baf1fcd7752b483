// Causal attention, gradient of the queries (Dao et al. 2022, algorithm 4):
//   delta[q] = dout[q] . out[q], kept for the keys' kernel;  dq = sum over k <= q of p (dp - delta) scale K[k], with p = exp(scale Q . K[k] - lse).
// Tiles as in tile.wgsl.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] write.
// Dispatch: (blocks of 32 queries, heads, b); the longest rows go first.
#include "attention/common.wgsl"
#include "attention/tile.wgsl"
#operand qkv read T
#operand out read T
#operand lse read f32
#operand dout read T
#operand dqkv write T
#operand delta write f32
struct Params {
    qkv_at: u32, out_at: u32, lse_at: u32, dout_at: u32, dqkv_at: u32, delta_at: u32,
#include "attention/fields.wgsl"
}
@group(1) @binding(0) var<uniform> p: Params;

#include "attention/upstream.wgsl"

@compute @workgroup_size(TILE_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let block = (p.block_at + groups.x - 1u - group.x) * TILE;
    let end = min(block + TILE, p.s);
    let head = p.head_at + group.y;
    let b = group.z;
    let q = vec4<u32>(block + 4u * ty) + vec4<u32>(0u, 1u, 2u, 3u);
    var lse: vec4<f32>;
    var share = vec4<f32>(0.0);
#for I 4
    let row{I} = min(q[{I}], p.s - 1u);
    lse[{I}] = load_lse(statistic(b, row{I}, head));
#for N SLICES
    if (4u * (8u * {N}u + tx) < p.d) {
        let c = 4u * (8u * {N}u + tx);
        let at = out_row(b, row{I}, head) + c;
        share[{I}] += dot(load4_dout(at, p.d - c), load4_out(at, p.d - c));
    }
#end
#end
    let delta = across(tx, ty, share);
#for N SLICES
    var sum{N} = mat4x4<f32>();
#end
    for (var first = 0u; first < end; first += TILE) {
        var score = mat4x4<f32>();
        var dp = mat4x4<f32>();
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            rows[slot(i, tx)] = p.scale * part_qkv(b, block + i, head, 0u, 8u * {N}u + tx);
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 1u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        score = products(tx, ty, score);
        workgroupBarrier();
        for (var i = ty; i < TILE; i += 8u) {
            rows[slot(i, tx)] = part_dout(b, block + i, head, 8u * {N}u + tx);
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 2u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        dp = products(tx, ty, dp);
        workgroupBarrier();
#end
        let k = first + 4u * tx;
#for I 4
        let before{I} = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(q[{I}]);
        let probability{I} = select(vec4<f32>(0.0), exp(score[{I}] - lse[{I}]), before{I});
#if DROPOUT
        dp[{I}] = select(vec4<f32>(0.0), dp[{I}] * p.keep_scale, kept4(b, head, q[{I}], k));
#endif
        weights[slot(4u * ty + {I}u, tx)] = probability{I} * (dp[{I}] - delta[{I}]) * p.scale;
#end
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 1u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        sum{N} = weighted(tx, ty, sum{N});
        workgroupBarrier();
#end
    }
#for I 4
    if (q[{I}] < p.s) {
#for N SLICES
        let c{N} = 4u * (8u * {N}u + tx);
        if (c{N} < p.d) {
            store4_dqkv(qkv_row(b, q[{I}], head, 0u) + c{N}, p.d - c{N}, sum{N}[{I}]);
        }
#end
        if (tx == 0u) {
            store_delta(statistic(b, q[{I}], head), delta[{I}]);
        }
    }
#end
}
