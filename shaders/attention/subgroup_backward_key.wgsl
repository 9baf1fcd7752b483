// Causal attention, gradients of keys and values, as backward_key.wgsl has it, lane by lane.
// For a processor that plays a GPU and has subgroups of exactly eight lanes: a workgroup is one subgroup, and each lane loads one of eight queries
// for all, as in subgroup_forward.wgsl.
// Operands: qkv [b, s, a, 3, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] read.
// Dispatch: (s / 8, a, b); the longest columns go first.
#include "attention/common.wgsl"
#operand qkv read T
#operand lse read f32
#operand dout read T
#operand dqkv write T
#operand delta read f32
struct Params {
    qkv_at: u32, lse_at: u32, dout_at: u32, dqkv_at: u32, delta_at: u32, s: u32, a: u32, d: u32, scale: f32,
    seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
    threshold: u32, keep_scale: f32, heads: u32, first_head: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = group.x * 8u;
    let k = min(block + lane, p.s - 1u);
    let head = group.y;
    let b = group.z;
    let key_row = qkv_row(b, k, head, 1u);
    let value_row = key_row + p.d;
#for C D4
    let key{C} = p.scale * load4_qkv(key_row + 4u * {C}u, p.d - 4u * {C}u);
    let value{C} = load4_qkv(value_row + 4u * {C}u, p.d - 4u * {C}u);
    var dkey{C} = vec4<f32>(0.0);
    var dvalue{C} = vec4<f32>(0.0);
#end
    let statistics = (b * p.a + head) * p.s;
#if DROPOUT
    let stream = vec2<u32>(p.stream_low, p.stream_high);
    let seed = vec2<u32>(p.seed_low, p.seed_high);
#endif
    for (var first = block; first < p.s; first += 8u) {
        let own_q = min(first + lane, p.s - 1u);
        let query_row = qkv_row(b, own_q, head, 0u);
        let row = out_row(b, own_q, head);
#for C D4
        let query{C} = load4_qkv(query_row + 4u * {C}u, p.d - 4u * {C}u);
        let upstream{C} = load4_dout(row + 4u * {C}u, p.d - 4u * {C}u);
#end
        let own_lse = load_lse(statistics + own_q);
        let own_delta = load_delta(statistics + own_q);
#for J 8
        var score{J} = 0.0;
        var dp{J} = 0.0;
#for C D4
        let query{C}_{J} = subgroupBroadcast(query{C}, {J}u);
        let upstream{C}_{J} = subgroupBroadcast(upstream{C}, {J}u);
        score{J} += dot(key{C}, query{C}_{J});
        dp{J} += dot(value{C}, upstream{C}_{J});
#end
        let q{J} = first + {J}u;
        let probability{J} = select(0.0, exp(score{J} - subgroupBroadcast(own_lse, {J}u)), k <= q{J} && q{J} < p.s);
        var kept{J} = probability{J};
#if DROPOUT
        let keep{J} = philox_word(add64(dropout_row(b, head, q{J}), k), stream, seed) >= p.threshold;
        kept{J} = select(0.0, probability{J} * p.keep_scale, keep{J});
        dp{J} = select(0.0, dp{J} * p.keep_scale, keep{J});
#endif
        let ds{J} = probability{J} * (dp{J} - subgroupBroadcast(own_delta, {J}u)) * p.scale;
#for C D4
        dkey{C} += ds{J} * query{C}_{J};
        dvalue{C} += kept{J} * upstream{C}_{J};
#end
#end
    }
    if (block + lane < p.s) {
#for C D4
        store4_dqkv(key_row + 4u * {C}u, p.d - 4u * {C}u, dkey{C});
        store4_dqkv(value_row + 4u * {C}u, p.d - 4u * {C}u, dvalue{C});
#end
    }
}
