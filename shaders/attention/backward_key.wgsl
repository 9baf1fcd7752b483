// Causal attention, gradients of keys and values (Dao et al. 2022, algorithm 4), from the queries in order; those before the key are masked.
//   dv = sum over q >= k of dropout(p) dout[q];  dk = sum over q >= k of p (dp - delta[q]) scale Q[q].
// Tiles as in tile.wgsl: rows are keys, columns are queries.
// Operands: qkv [b, s, a, 3, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] read.
// Dispatch: (blocks of 32 keys, heads, b); the longest columns go first.
#include "attention/common.wgsl"
#include "attention/tile.wgsl"
#operand qkv read T
#operand lse read f32
#operand dout read T
#operand dqkv write T
#operand delta read f32
struct Params {
    qkv_at: u32, lse_at: u32, dout_at: u32, dqkv_at: u32, delta_at: u32,
#include "attention/fields.wgsl"
}
@group(1) @binding(0) var<uniform> p: Params;

#include "attention/upstream.wgsl"

@compute @workgroup_size(TILE_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let block = (p.block_at + group.x) * TILE;
    let head = p.head_at + group.y;
    let b = group.z;
    let k = block + 4u * ty;
#for N SLICES
    var dkey{N} = mat4x4<f32>();
    var dvalue{N} = mat4x4<f32>();
#end
    for (var first = block; first < p.s; first += TILE) {
        var score = mat4x4<f32>();
        var dp = mat4x4<f32>();
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            rows[slot(i, tx)] = p.scale * part_qkv(b, block + i, head, 1u, 8u * {N}u + tx);
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 0u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        score = products(tx, ty, score);
        workgroupBarrier();
        for (var i = ty; i < TILE; i += 8u) {
            rows[slot(i, tx)] = part_qkv(b, block + i, head, 2u, 8u * {N}u + tx);
            columns[slot(i, tx)] = part_dout(b, first + i, head, 8u * {N}u + tx);
        }
        workgroupBarrier();
        dp = products(tx, ty, dp);
        workgroupBarrier();
#end
        let q = vec4<u32>(first + 4u * tx) + vec4<u32>(0u, 1u, 2u, 3u);
        var lse: vec4<f32>;
        var delta: vec4<f32>;
        // By key and query, where the masks come by query and key.
        var scale = mat4x4<f32>(vec4<f32>(1.0), vec4<f32>(1.0), vec4<f32>(1.0), vec4<f32>(1.0));
#for J 4
        lse[{J}] = load_lse(statistic(b, min(q[{J}], p.s - 1u), head));
        delta[{J}] = load_delta(statistic(b, min(q[{J}], p.s - 1u), head));
#if DROPOUT
        scale[{J}] = select(vec4<f32>(0.0), vec4<f32>(p.keep_scale), kept4(b, head, q[{J}], k));
#endif
#end
        scale = transpose(scale);
        var ds = mat4x4<f32>();
#for I 4
        let after{I} = (vec4<u32>(k + {I}u) <= q) & (q < vec4<u32>(p.s));
        let probability{I} = select(vec4<f32>(0.0), exp(score[{I}] - lse), after{I});
        weights[slot(4u * ty + {I}u, tx)] = probability{I} * scale[{I}];
        ds[{I}] = probability{I} * (dp[{I}] * scale[{I}] - delta) * p.scale;
#end
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            columns[slot(i, tx)] = part_dout(b, first + i, head, 8u * {N}u + tx);
        }
        workgroupBarrier();
        dvalue{N} = weighted(tx, ty, dvalue{N});
        workgroupBarrier();
#end
#for I 4
        weights[slot(4u * ty + {I}u, tx)] = ds[{I}];
#end
#for N SLICES
        for (var i = ty; i < TILE; i += 8u) {
            columns[slot(i, tx)] = part_qkv(b, first + i, head, 0u, 8u * {N}u + tx);
        }
        workgroupBarrier();
        dkey{N} = weighted(tx, ty, dkey{N});
        workgroupBarrier();
#end
    }
#for I 4
    if (k + {I}u < p.s) {
#for N SLICES
        let c{N} = 4u * (8u * {N}u + tx);
        if (c{N} < p.d) {
            store4_dqkv(qkv_row(b, k + {I}u, head, 1u) + c{N}, p.d - c{N}, dkey{N}[{I}]);
            store4_dqkv(qkv_row(b, k + {I}u, head, 2u) + c{N}, p.d - c{N}, dvalue{N}[{I}]);
        }
#end
    }
#end
}
