// Causal attention, gradients of keys and values (Dao et al. 2022, algorithm 4): a lane has a key and takes the queries from the workgroup's first key on, in
// order; those before its own key are masked.
//   dv = sum over q >= k of dropout(p) dout[q];  dk = sum over q >= k of p (dp - delta[q]) scale Q[q].
// Operands: qkv [b, s, a, 3, d] read · lse [b, a, s] read · dout [b, s, a, d] read · dqkv [b, s, a, 3, d] write · delta [b, a, s] read.
// Dispatch: (s / lanes, a, b); the longest columns go first.
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

@compute @workgroup_size(ATTENTION_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * ATTENTION_LANES;
    let k = first + lane;
    let head = group.y;
    let b = group.z;
    if (k >= p.s) {
        return;
    }
    var key: array<vec4<f32>, D4>;
    var value: array<vec4<f32>, D4>;
    var dkey: array<vec4<f32>, D4>;
    var dvalue: array<vec4<f32>, D4>;
    let key_row = qkv_row(b, k, head, 1u);
    let value_row = key_row + p.d;
    for (var c = 0u; c < D4; c++) {
        key[c] = p.scale * load4_qkv(key_row + 4u * c, p.d - 4u * c);
        value[c] = load4_qkv(value_row + 4u * c, p.d - 4u * c);
        dkey[c] = vec4<f32>(0.0);
        dvalue[c] = vec4<f32>(0.0);
    }
    let statistics = (b * p.a + head) * p.s;
    for (var q = first; q < p.s; q++) {
        let query_row = qkv_row(b, q, head, 0u);
        let row = out_row(b, q, head);
        var score = 0.0;
        var dp = 0.0;
        for (var c = 0u; c < D4; c++) {
            score += dot(key[c], load4_qkv(query_row + 4u * c, p.d - 4u * c));
            dp += dot(value[c], load4_dout(row + 4u * c, p.d - 4u * c));
        }
        let probability = select(0.0, exp(score - load_lse(statistics + q)), k <= q);
        var kept = probability;
#if DROPOUT
        let word = philox_word(add64(dropout_row(b, head, q), k), vec2<u32>(p.stream_low, p.stream_high), vec2<u32>(p.seed_low, p.seed_high));
        let keep = word >= p.threshold;
        kept = select(0.0, probability * p.keep_scale, keep);
        dp = select(0.0, dp * p.keep_scale, keep);
#endif
        let ds = probability * (dp - load_delta(statistics + q)) * p.scale;
        for (var c = 0u; c < D4; c++) {
            dkey[c] += ds * load4_qkv(query_row + 4u * c, p.d - 4u * c);
            dvalue[c] += kept * load4_dout(row + 4u * c, p.d - 4u * c);
        }
    }
    for (var c = 0u; c < D4; c++) {
        store4_dqkv(key_row + 4u * c, p.d - 4u * c, dkey[c]);
        store4_dqkv(value_row + 4u * c, p.d - 4u * c, dvalue[c]);
    }
}
