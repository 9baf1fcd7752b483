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

fn load_qkv(row: u32, c: u32) -> vec4<f32> {
#if WIDE
    return qkv[p.qkv_at + row + c];
#else
    let at = p.qkv_at + row + 4u * c;
    let left = p.d - 4u * c;
    var v = vec4<f32>(qkv[at], 0.0, 0.0, 0.0);
    if (left > 1u) {
        v.y = qkv[at + 1u];
    }
    if (left > 2u) {
        v.z = qkv[at + 2u];
    }
    if (left > 3u) {
        v.w = qkv[at + 3u];
    }
    return v;
#endif
}

fn load_dout(row: u32, c: u32) -> vec4<f32> {
#if WIDE
    return dout[p.dout_at + row + c];
#else
    let at = p.dout_at + row + 4u * c;
    let left = p.d - 4u * c;
    var v = vec4<f32>(dout[at], 0.0, 0.0, 0.0);
    if (left > 1u) {
        v.y = dout[at + 1u];
    }
    if (left > 2u) {
        v.z = dout[at + 2u];
    }
    if (left > 3u) {
        v.w = dout[at + 3u];
    }
    return v;
#endif
}

fn store_dqkv(row: u32, c: u32, v: vec4<f32>) {
#if WIDE
    dqkv[p.dqkv_at + row + c] = v;
#else
    let at = p.dqkv_at + row + 4u * c;
    let left = p.d - 4u * c;
    dqkv[at] = v.x;
    if (left > 1u) {
        dqkv[at + 1u] = v.y;
    }
    if (left > 2u) {
        dqkv[at + 2u] = v.z;
    }
    if (left > 3u) {
        dqkv[at + 3u] = v.w;
    }
#endif
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = group.x * 8u;
    let k = min(block + lane, p.s - 1u);
    let head = group.y;
    let b = group.z;
    let key_row = qkv_row(b, k, head, 1u);
    let value_row = key_row + p.d / WIDTH;
#for C D4
    let key{C} = p.scale * load_qkv(key_row, {C}u);
    let value{C} = load_qkv(value_row, {C}u);
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
        let query{C} = load_qkv(query_row, {C}u);
        let upstream{C} = load_dout(row, {C}u);
#end
        let own_lse = lse[p.lse_at + statistics + own_q];
        let own_delta = delta[p.delta_at + statistics + own_q];
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
        store_dqkv(key_row, {C}u, dkey{C});
        store_dqkv(value_row, {C}u, dvalue{C});
#end
    }
}
