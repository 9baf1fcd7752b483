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
    let query{C} = p.scale * load4_qkv(query_row + 4u * {C}u, p.d - 4u * {C}u);
    let upstream{C} = load4_dout(out_at + 4u * {C}u, p.d - 4u * {C}u);
    var gradient{C} = vec4<f32>(0.0);
    own_delta += dot(upstream{C}, load4_out(out_at + 4u * {C}u, p.d - 4u * {C}u));
#end
    let statistic = (b * p.a + head) * p.s + q;
    let own_lse = load_lse(statistic);
#if DROPOUT
    let words_at = dropout_row(b, head, q);
    let stream = vec2<u32>(p.stream_low, p.stream_high);
    let seed = vec2<u32>(p.seed_low, p.seed_high);
#endif
    for (var first = 0u; first <= last; first += 8u) {
        let row = qkv_row(b, min(first + lane, p.s - 1u), head, 1u);
#for C D4
        let key{C} = load4_qkv(row + 4u * {C}u, p.d - 4u * {C}u);
        let value{C} = load4_qkv(row + p.d + 4u * {C}u, p.d - 4u * {C}u);
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
        store_delta(statistic, own_delta);
#for C D4
        store4_dqkv(query_row + 4u * {C}u, p.d - 4u * {C}u, gradient{C});
#end
    }
}
