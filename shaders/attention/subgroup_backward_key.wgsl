// Causal attention, gradients of keys and values, as backward_key.wgsl has it; lanes, rows and keys as in subgroup_forward.wgsl with queries and keys exchanged:
// a lane has ROWS keys in a row and loads one of eight queries.
// Operands: qkv [b, s, a, 3, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] read.
// Dispatch: (blocks of 8 ROWS keys, heads, b); the longest columns go first.
#include "attention/common.wgsl"
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

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = (p.block_at + group.x) * (8u * ROWS);
    let head = p.head_at + group.y;
    let b = group.z;
    let own = block + lane * ROWS;
#for R ROWS
    let k{R} = min(own + {R}u, p.s - 1u);
    let key_row{R} = qkv_row(b, k{R}, head, 1u);
#for C D4
    let key{R}_{C} = p.scale * load4_qkv(key_row{R} + 4u * {C}u, p.d - 4u * {C}u);
    let value{R}_{C} = load4_qkv(key_row{R} + p.d + 4u * {C}u, p.d - 4u * {C}u);
#for I 4
    var dkey{R}_{C}_{I} = 0.0;
    var dvalue{R}_{C}_{I} = 0.0;
#end
#end
#end
    for (var first = block; first < p.s; first += 8u) {
        let q = min(first + lane, p.s - 1u);
        let query_row = qkv_row(b, q, head, 0u);
        let out_at = out_row(b, q, head);
#for C D4
        let query{C} = load4_qkv(query_row + 4u * {C}u, p.d - 4u * {C}u);
        let upstream{C} = load4_dout(out_at + 4u * {C}u, p.d - 4u * {C}u);
#end
        let lse = load_lse(statistic(b, q, head));
        let delta = load_delta(statistic(b, q, head));
#for H 4
#for R ROWS
        var score{R}_{H}_0 = 0.0;
        var score{R}_{H}_1 = 0.0;
        var dp{R}_{H}_0 = 0.0;
        var dp{R}_{H}_1 = 0.0;
#end
#for C D4
#for I 4
#for E 2
        let query{C}_{I}_{H}_{E} = subgroupBroadcast(query{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        score{R}_{H}_{E} = fma(key{R}_{C}[{I}], query{C}_{I}_{H}_{E}, score{R}_{H}_{E});
#end
#end
#end
#end
#for C D4
#for I 4
#for E 2
        let upstream{C}_{I}_{H}_{E} = subgroupBroadcast(upstream{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        dp{R}_{H}_{E} = fma(value{R}_{C}[{I}], upstream{C}_{I}_{H}_{E}, dp{R}_{H}_{E});
#end
#end
#end
#end
#for E 2
        let q_{H}_{E} = first + (2u * {H}u + {E}u);
        let lse_{H}_{E} = subgroupBroadcast(lse, 2u * {H}u + {E}u);
        let delta_{H}_{E} = subgroupBroadcast(delta, 2u * {H}u + {E}u);
#if DROPOUT
        let kept_{H}_{E} = kept4(b, head, q_{H}_{E}, own);
#endif
#for R ROWS
        let probability{R}_{H}_{E} = select(0.0, exp(score{R}_{H}_{E} - lse_{H}_{E}), k{R} <= q_{H}_{E} && q_{H}_{E} < p.s);
        var weight{R}_{H}_{E} = probability{R}_{H}_{E};
#if DROPOUT
        weight{R}_{H}_{E} = select(0.0, weight{R}_{H}_{E} * p.keep_scale, kept_{H}_{E}[{R}]);
        dp{R}_{H}_{E} = select(0.0, dp{R}_{H}_{E} * p.keep_scale, kept_{H}_{E}[{R}]);
#endif
        let ds{R}_{H}_{E} = probability{R}_{H}_{E} * (dp{R}_{H}_{E} - delta_{H}_{E}) * p.scale;
#end
#end
#end
#for C D4
#for I 4
#for H 4
#for E 2
        let query_again{C}_{I}_{H}_{E} = subgroupBroadcast(query{C}[{I}], 2u * {H}u + {E}u);
        let upstream_again{C}_{I}_{H}_{E} = subgroupBroadcast(upstream{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        dkey{R}_{C}_{I} = fma(ds{R}_{H}_{E}, query_again{C}_{I}_{H}_{E}, dkey{R}_{C}_{I});
        dvalue{R}_{C}_{I} = fma(weight{R}_{H}_{E}, upstream_again{C}_{I}_{H}_{E}, dvalue{R}_{C}_{I});
#end
#end
#end
#end
#end
    }
#for R ROWS
    if (own + {R}u < p.s) {
#for C D4
        store4_dqkv(key_row{R} + 4u * {C}u, p.d - 4u * {C}u, vec4<f32>(dkey{R}_{C}_0, dkey{R}_{C}_1, dkey{R}_{C}_2, dkey{R}_{C}_3));
        store4_dqkv(key_row{R} + p.d + 4u * {C}u, p.d - 4u * {C}u, vec4<f32>(dvalue{R}_{C}_0, dvalue{R}_{C}_1, dvalue{R}_{C}_2, dvalue{R}_{C}_3));
#end
    }
#end
}
