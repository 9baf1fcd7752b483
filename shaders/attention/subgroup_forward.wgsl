// Causal attention, forward, as forward.wgsl has it, lane by lane.
// For a processor that plays a GPU and has subgroups of exactly eight lanes: a workgroup is one subgroup, and each lane loads one of eight keys, which
// subgroupBroadcast hands to the others, since there a load costs as much as some hundred products. Lanes past the last query go along and store nothing.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] write · lse [b, a, s] write.
// Dispatch: (s / 8, a, b); the longest rows go first.
#include "attention/common.wgsl"
#operand qkv read T
#operand out write T
#operand lse write f32
struct Params {
    qkv_at: u32, out_at: u32, lse_at: u32, s: u32, a: u32, d: u32, scale: f32,
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
#for C D4
    let query{C} = p.scale * load4_qkv(query_row + 4u * {C}u, p.d - 4u * {C}u);
    var sum{C} = vec4<f32>(0.0);
#end
#if DROPOUT
    let words_at = dropout_row(b, head, q);
    let stream = vec2<u32>(p.stream_low, p.stream_high);
    let seed = vec2<u32>(p.seed_low, p.seed_high);
#endif
    var highest = -1.0e30;
    var total = 0.0;
    for (var first = 0u; first <= last; first += 8u) {
        let row = qkv_row(b, min(first + lane, p.s - 1u), head, 1u);
#for C D4
        let key{C} = load4_qkv(row + 4u * {C}u, p.d - 4u * {C}u);
        let value{C} = load4_qkv(row + p.d + 4u * {C}u, p.d - 4u * {C}u);
#end
        var higher = highest;
#for J 8
        var score{J} = 0.0;
#for C D4
        score{J} += dot(query{C}, subgroupBroadcast(key{C}, {J}u));
#end
        score{J} = select(-1.0e30, score{J}, first + {J}u <= q);
        higher = max(higher, score{J});
#end
        let shrink = exp(highest - higher);
        highest = higher;
        total *= shrink;
#for C D4
        sum{C} *= shrink;
#end
#if DROPOUT
        let words_a = philox_words(add64(words_at, first), stream, seed);
        let words_b = philox_words(add64(words_at, first + 4u), stream, seed);
        var words = array<u32, 8>(words_a.x, words_a.y, words_a.z, words_a.w, words_b.x, words_b.y, words_b.z, words_b.w);
#endif
#for J 8
        var weight{J} = exp(score{J} - higher);
        total += weight{J};
#if DROPOUT
        weight{J} = select(0.0, weight{J} * p.keep_scale, words[{J}] >= p.threshold);
#endif
#for C D4
        sum{C} += weight{J} * subgroupBroadcast(value{C}, {J}u);
#end
#end
    }
    if (block + lane < p.s) {
        let to = out_row(b, q, head);
#for C D4
        store4_out(to + 4u * {C}u, p.d - 4u * {C}u, sum{C} / total);
#end
        store_lse((b * p.a + head) * p.s + q, highest + log(total));
    }
}
