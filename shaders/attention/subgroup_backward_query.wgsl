// Causal attention, gradient of the queries, as backward_query.wgsl has it; lanes, rows and keys as in subgroup_forward.wgsl.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] write.
// Dispatch: (blocks of 8 ROWS queries, heads, b); the longest rows go first.
#include "attention/common.wgsl"
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

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = (p.block_at + groups.x - 1u - group.x) * (8u * ROWS);
    let last = min(block + 8u * ROWS, p.s) - 1u;
    let head = p.head_at + group.y;
    let b = group.z;
#for R ROWS
    let q{R} = min(block + lane * ROWS + {R}u, p.s - 1u);
    let query_row{R} = qkv_row(b, q{R}, head, 0u);
    let out_at{R} = out_row(b, q{R}, head);
    let lse{R} = load_lse(statistic(b, q{R}, head));
    var delta{R} = 0.0;
#for C D4
    let query{R}_{C} = p.scale * load4_qkv(query_row{R} + 4u * {C}u, p.d - 4u * {C}u);
    let upstream{R}_{C} = load4_dout(out_at{R} + 4u * {C}u, p.d - 4u * {C}u);
    delta{R} += dot(upstream{R}_{C}, load4_out(out_at{R} + 4u * {C}u, p.d - 4u * {C}u));
#for I 4
    var sum{R}_{C}_{I} = 0.0;
#end
#end
#end
    for (var first = 0u; first <= last; first += 8u) {
        let row = qkv_row(b, min(first + lane, p.s - 1u), head, 1u);
#for C D4
        let key{C} = load4_qkv(row + 4u * {C}u, p.d - 4u * {C}u);
        let value{C} = load4_qkv(row + p.d + 4u * {C}u, p.d - 4u * {C}u);
#end
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
        let key{C}_{I}_{H}_{E} = subgroupBroadcast(key{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        score{R}_{H}_{E} = fma(query{R}_{C}[{I}], key{C}_{I}_{H}_{E}, score{R}_{H}_{E});
#end
#end
#end
#end
#for C D4
#for I 4
#for E 2
        let value{C}_{I}_{H}_{E} = subgroupBroadcast(value{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        dp{R}_{H}_{E} = fma(upstream{R}_{C}[{I}], value{C}_{I}_{H}_{E}, dp{R}_{H}_{E});
#end
#end
#end
#end
#end
#for R ROWS
#if DROPOUT
        let kept{R}_a = kept4(b, head, q{R}, first);
        let kept{R}_b = kept4(b, head, q{R}, first + 4u);
        let kept{R}_0 = kept{R}_a.xy;
        let kept{R}_1 = kept{R}_a.zw;
        let kept{R}_2 = kept{R}_b.xy;
        let kept{R}_3 = kept{R}_b.zw;
#endif
#for H 4
#for E 2
        let probability{R}_{H}_{E} = select(0.0, exp(score{R}_{H}_{E} - lse{R}), first + (2u * {H}u + {E}u) <= q{R});
#if DROPOUT
        dp{R}_{H}_{E} = select(0.0, dp{R}_{H}_{E} * p.keep_scale, kept{R}_{H}[{E}]);
#endif
        let ds{R}_{H}_{E} = probability{R}_{H}_{E} * (dp{R}_{H}_{E} - delta{R}) * p.scale;
#end
#end
#end
#for C D4
#for I 4
#for H 4
#for E 2
        let again{C}_{I}_{H}_{E} = subgroupBroadcast(key{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        sum{R}_{C}_{I} = fma(ds{R}_{H}_{E}, again{C}_{I}_{H}_{E}, sum{R}_{C}_{I});
#end
#end
#end
#end
#end
    }
#for R ROWS
    if (block + lane * ROWS + {R}u < p.s) {
        store_delta(statistic(b, q{R}, head), delta{R});
#for C D4
        store4_dqkv(query_row{R} + 4u * {C}u, p.d - 4u * {C}u, vec4<f32>(sum{R}_{C}_0, sum{R}_{C}_1, sum{R}_{C}_2, sum{R}_{C}_3));
#end
    }
#end
}
