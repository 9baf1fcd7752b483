// Causal attention, forward, as forward.wgsl has it.
// For a processor that plays a GPU and has subgroups of exactly eight lanes: a workgroup is one subgroup, a lane has ROWS queries in a row, and each lane loads
// one of eight keys, whose numbers subgroupBroadcast hands to the others: there a load that differs from lane to lane costs as much as some hundred products,
// so that each has to serve as many queries as the processor's first cache can keep. Two keys at a time, so that their scores stay in registers.
// Lanes past the last query go along and store nothing.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] write · lse [b, a, s] write.
// Dispatch: (blocks of 8 ROWS queries, heads, b); the longest rows go first.
#include "attention/common.wgsl"
#operand qkv read T
#operand out write T
#operand lse write f32
struct Params {
    qkv_at: u32, out_at: u32, lse_at: u32,
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
    var highest{R} = MASKED;
    var total{R} = 0.0;
#for C D4
    let query{R}_{C} = p.scale * load4_qkv(query_row{R} + 4u * {C}u, p.d - 4u * {C}u);
#for I 4
    var sum{R}_{C}_{I} = 0.0;
#end
#end
#end
    for (var first = 0u; first <= last; first += 8u) {
        let row = qkv_row(b, min(first + lane, p.s - 1u), head, 1u);
#for C D4
        let key{C} = load4_qkv(row + 4u * {C}u, p.d - 4u * {C}u);
#end
#for H 4
#for R ROWS
        var score{R}_{H}_0 = 0.0;
        var score{R}_{H}_1 = 0.0;
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
#end
#for R ROWS
        var higher{R} = highest{R};
#for H 4
#for E 2
        score{R}_{H}_{E} = select(MASKED, score{R}_{H}_{E}, first + (2u * {H}u + {E}u) <= q{R});
        higher{R} = max(higher{R}, score{R}_{H}_{E});
#end
#end
        let shrink{R} = exp(highest{R} - higher{R});
        highest{R} = higher{R};
        total{R} *= shrink{R};
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
        var weight{R}_{H}_{E} = exp(score{R}_{H}_{E} - higher{R});
        total{R} += weight{R}_{H}_{E};
#if DROPOUT
        weight{R}_{H}_{E} = select(0.0, weight{R}_{H}_{E} * p.keep_scale, kept{R}_{H}[{E}]);
#endif
#end
#end
#end
#for C D4
        let value{C} = load4_qkv(row + p.d + 4u * {C}u, p.d - 4u * {C}u);
#for I 4
#for R ROWS
        sum{R}_{C}_{I} *= shrink{R};
#end
#for H 4
#for E 2
        let value{C}_{I}_{H}_{E} = subgroupBroadcast(value{C}[{I}], 2u * {H}u + {E}u);
#for R ROWS
        sum{R}_{C}_{I} = fma(weight{R}_{H}_{E}, value{C}_{I}_{H}_{E}, sum{R}_{C}_{I});
#end
#end
#end
#end
#end
    }
#for R ROWS
    if (block + lane * ROWS + {R}u < p.s) {
        let to = out_row(b, q{R}, head);
#for C D4
        store4_out(to + 4u * {C}u, p.d - 4u * {C}u, vec4<f32>(sum{R}_{C}_0, sum{R}_{C}_1, sum{R}_{C}_2, sum{R}_{C}_3) / total{R});
#end
        store_lse(statistic(b, q{R}, head), highest{R} + log(total{R}));
    }
#end
}
