// Causal attention, gradient of the queries, as backward_query.wgsl has it, lane by lane.
// For a processor that plays a GPU and has subgroups of exactly eight lanes: a workgroup is one subgroup, and each lane loads one of eight keys
// for all, as in subgroup_forward.wgsl.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] write.
// Dispatch: (s / 8, a, b); the longest rows go first.
#include "attention/common.wgsl"
#operand qkv read T
#operand out read T
#operand lse read f32
#operand dout read T
#operand dqkv write T
#operand delta write f32
struct Params {
    qkv_at: u32, out_at: u32, lse_at: u32, dout_at: u32, dqkv_at: u32, delta_at: u32, s: u32, a: u32, d: u32, scale: f32,
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

fn load_out(row: u32, c: u32) -> vec4<f32> {
#if WIDE
    return out[p.out_at + row + c];
#else
    let at = p.out_at + row + 4u * c;
    let left = p.d - 4u * c;
    var v = vec4<f32>(out[at], 0.0, 0.0, 0.0);
    if (left > 1u) {
        v.y = out[at + 1u];
    }
    if (left > 2u) {
        v.z = out[at + 2u];
    }
    if (left > 3u) {
        v.w = out[at + 3u];
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
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = (groups.x - 1u - group.x) * 8u;
    let last = min(block + 7u, p.s - 1u);
    let q = min(block + lane, last);
    let head = group.y;
    let b = group.z;
    let query_row = qkv_row(b, q, head, 0u);
    let out_at = out_row(b, q, head);
    var own_delta = 0.0;
#for C D4
    let query{C} = p.scale * load_qkv(query_row, {C}u);
    let upstream{C} = load_dout(out_at, {C}u);
    var gradient{C} = vec4<f32>(0.0);
    own_delta += dot(upstream{C}, load_out(out_at, {C}u));
#end
    let statistic = (b * p.a + head) * p.s + q;
    let own_lse = lse[p.lse_at + statistic];
#if DROPOUT
    let words_at = dropout_row(b, head, q);
    let stream = vec2<u32>(p.stream_low, p.stream_high);
    let seed = vec2<u32>(p.seed_low, p.seed_high);
#endif
    for (var first = 0u; first <= last; first += 8u) {
        let row = qkv_row(b, min(first + lane, p.s - 1u), head, 1u);
#for C D4
        let key{C} = load_qkv(row, {C}u);
        let value{C} = load_qkv(row + p.d / WIDTH, {C}u);
#end
#if DROPOUT
        let words_a = philox_words(add64(words_at, first), stream, seed);
        let words_b = philox_words(add64(words_at, first + 4u), stream, seed);
        var words = array<u32, 8>(words_a.x, words_a.y, words_a.z, words_a.w, words_b.x, words_b.y, words_b.z, words_b.w);
#endif
#for J 8
        var score{J} = 0.0;
        var dp{J} = 0.0;
#for C D4
        let key{C}_{J} = subgroupBroadcast(key{C}, {J}u);
        score{J} += dot(query{C}, key{C}_{J});
        dp{J} += dot(upstream{C}, subgroupBroadcast(value{C}, {J}u));
#end
        let probability{J} = select(0.0, exp(score{J} - own_lse), first + {J}u <= q);
#if DROPOUT
        dp{J} = select(0.0, dp{J} * p.keep_scale, words[{J}] >= p.threshold);
#endif
        let ds{J} = probability{J} * (dp{J} - own_delta) * p.scale;
#for C D4
        gradient{C} += ds{J} * key{C}_{J};
#end
#end
    }
    if (block + lane < p.s) {
        delta[p.delta_at + statistic] = own_delta;
#for C D4
        store_dqkv(query_row, {C}u, gradient{C});
#end
    }
}
