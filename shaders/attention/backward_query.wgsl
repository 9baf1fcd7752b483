// Causal attention, gradient of the queries (Dao et al. 2022, algorithm 4): a lane has a query and takes its keys in order.
//   delta[q] = dout[q] . out[q], kept for the keys' kernel;  dq = sum over k <= q of p (dp - delta) scale K[k], with p = exp(scale Q . K[k] - lse).
// Operands: qkv [b, s, a, 3, d] read · out [b, s, a, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] write.
// Dispatch: (s / lanes, a, b); the longest rows go first.
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

@compute @workgroup_size(ATTENTION_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let q = (groups.x - 1u - group.x) * ATTENTION_LANES + lane;
    let head = group.y;
    let b = group.z;
    if (q >= p.s) {
        return;
    }
    var query: array<vec4<f32>, D4>;
    var upstream: array<vec4<f32>, D4>;
    var gradient: array<vec4<f32>, D4>;
    let query_row = qkv_row(b, q, head, 0u);
    let row = out_row(b, q, head);
    var own_delta = 0.0;
    for (var c = 0u; c < D4; c++) {
        query[c] = p.scale * load4_qkv(query_row + 4u * c, p.d - 4u * c);
        upstream[c] = load4_dout(row + 4u * c, p.d - 4u * c);
        gradient[c] = vec4<f32>(0.0);
        own_delta += dot(upstream[c], load4_out(row + 4u * c, p.d - 4u * c));
    }
    let statistic = (b * p.a + head) * p.s + q;
    let own_lse = load_lse(statistic);
    store_delta(statistic, own_delta);
#if DROPOUT
    let words_at = dropout_row(b, head, q);
#endif
    for (var first = 0u; first <= q; first += 4u) {
        let keys = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.s - 1u));
        let row0 = qkv_row(b, keys.x, head, 1u);
        let row1 = qkv_row(b, keys.y, head, 1u);
        let row2 = qkv_row(b, keys.z, head, 1u);
        let row3 = qkv_row(b, keys.w, head, 1u);
        let value = p.d;
        var score = vec4<f32>(0.0);
        var dp = vec4<f32>(0.0);
        for (var c = 0u; c < D4; c++) {
            score += vec4<f32>(
                dot(query[c], load4_qkv(row0 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row1 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row2 + 4u * c, p.d - 4u * c)), dot(query[c], load4_qkv(row3 + 4u * c, p.d - 4u * c)),
            );
            dp += vec4<f32>(
                dot(upstream[c], load4_qkv(row0 + value + 4u * c, p.d - 4u * c)), dot(upstream[c], load4_qkv(row1 + value + 4u * c, p.d - 4u * c)),
                dot(upstream[c], load4_qkv(row2 + value + 4u * c, p.d - 4u * c)), dot(upstream[c], load4_qkv(row3 + value + 4u * c, p.d - 4u * c)),
            );
        }
        let probability = select(vec4<f32>(0.0), exp(score - own_lse), vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(q));
#if DROPOUT
        let words = philox_words(add64(words_at, first), vec2<u32>(p.stream_low, p.stream_high), vec2<u32>(p.seed_low, p.seed_high));
        dp = select(vec4<f32>(0.0), dp * p.keep_scale, words >= vec4<u32>(p.threshold));
#endif
        let ds = probability * (dp - own_delta) * p.scale;
        for (var c = 0u; c < D4; c++) {
            gradient[c] += (ds.x * load4_qkv(row0 + 4u * c, p.d - 4u * c) + ds.y * load4_qkv(row1 + 4u * c, p.d - 4u * c)) + (ds.z * load4_qkv(row2 + 4u * c, p.d - 4u * c) + ds.w * load4_qkv(row3 + 4u * c, p.d - 4u * c));
        }
    }
    for (var c = 0u; c < D4; c++) {
        store4_dqkv(query_row + 4u * c, p.d - 4u * c, gradient[c]);
    }
}
