// Causal attention, forward, softmax in one pass over the keys (Dao et al. 2022): a lane has a query, its running maximum, sum and weighted values, and takes
// four keys at a time. No [s, s] matrix is kept.
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] write · lse [b, a, s] write.
// Dispatch: (s / lanes, a, b); the longest rows go first.
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

@compute @workgroup_size(ATTENTION_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let q = (groups.x - 1u - group.x) * ATTENTION_LANES + lane;
    let head = group.y;
    let b = group.z;
    if (q >= p.s) {
        return;
    }
    var query: array<vec4<f32>, D4>;
    var sum: array<vec4<f32>, D4>;
    let query_row = qkv_row(b, q, head, 0u);
    for (var c = 0u; c < D4; c++) {
        query[c] = p.scale * load4_qkv(query_row + 4u * c, p.d - 4u * c);
        sum[c] = vec4<f32>(0.0);
    }
#if DROPOUT
    let words_at = dropout_row(b, head, q);
#endif
    var highest = -1.0e30;
    var total = 0.0;
    for (var first = 0u; first <= q; first += 4u) {
        // Keys after the query are read as the last token and masked.
        let keys = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.s - 1u));
        let row0 = qkv_row(b, keys.x, head, 1u);
        let row1 = qkv_row(b, keys.y, head, 1u);
        let row2 = qkv_row(b, keys.z, head, 1u);
        let row3 = qkv_row(b, keys.w, head, 1u);
        var score = vec4<f32>(0.0);
        for (var c = 0u; c < D4; c++) {
            score += vec4<f32>(
                dot(query[c], load4_qkv(row0 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row1 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row2 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row3 + 4u * c, p.d - 4u * c)),
            );
        }
        score = select(vec4<f32>(-1.0e30), score, vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(q));
        let higher = max(highest, max(max(score.x, score.y), max(score.z, score.w)));
        let shrink = exp(highest - higher);
        var weight = exp(score - higher);
        total = total * shrink + ((weight.x + weight.y) + (weight.z + weight.w));
        highest = higher;
#if DROPOUT
        let words = philox_words(add64(words_at, first), vec2<u32>(p.stream_low, p.stream_high), vec2<u32>(p.seed_low, p.seed_high));
        weight = select(vec4<f32>(0.0), weight * p.keep_scale, words >= vec4<u32>(p.threshold));
#endif
        let value = p.d;
        for (var c = 0u; c < D4; c++) {
            sum[c] = sum[c] * shrink + ((weight.x * load4_qkv(row0 + value + 4u * c, p.d - 4u * c) + weight.y * load4_qkv(row1 + value + 4u * c, p.d - 4u * c))
                + (weight.z * load4_qkv(row2 + value + 4u * c, p.d - 4u * c) + weight.w * load4_qkv(row3 + value + 4u * c, p.d - 4u * c)));
        }
    }
    let to = out_row(b, q, head);
    for (var c = 0u; c < D4; c++) {
        store4_out(to + 4u * c, p.d - 4u * c, sum[c] / total);
    }
    store_lse((b * p.a + head) * p.s + q, highest + log(total));
}
