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
        query[c] = p.scale * load_qkv(query_row, c);
        upstream[c] = load_dout(row, c);
        gradient[c] = vec4<f32>(0.0);
        own_delta += dot(upstream[c], load_out(row, c));
    }
    let statistic = (b * p.a + head) * p.s + q;
    let own_lse = lse[p.lse_at + statistic];
    delta[p.delta_at + statistic] = own_delta;
#if DROPOUT
    let words_at = dropout_row(b, head, q);
#endif
    for (var first = 0u; first <= q; first += 4u) {
        let keys = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.s - 1u));
        let row0 = qkv_row(b, keys.x, head, 1u);
        let row1 = qkv_row(b, keys.y, head, 1u);
        let row2 = qkv_row(b, keys.z, head, 1u);
        let row3 = qkv_row(b, keys.w, head, 1u);
        let value = p.d / WIDTH;
        var score = vec4<f32>(0.0);
        var dp = vec4<f32>(0.0);
        for (var c = 0u; c < D4; c++) {
            score += vec4<f32>(
                dot(query[c], load_qkv(row0, c)), dot(query[c], load_qkv(row1, c)), dot(query[c], load_qkv(row2, c)), dot(query[c], load_qkv(row3, c)),
            );
            dp += vec4<f32>(
                dot(upstream[c], load_qkv(row0 + value, c)), dot(upstream[c], load_qkv(row1 + value, c)),
                dot(upstream[c], load_qkv(row2 + value, c)), dot(upstream[c], load_qkv(row3 + value, c)),
            );
        }
        let probability = select(vec4<f32>(0.0), exp(score - own_lse), vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(q));
#if DROPOUT
        let words = philox_words(add64(words_at, first), vec2<u32>(p.stream_low, p.stream_high), vec2<u32>(p.seed_low, p.seed_high));
        dp = select(vec4<f32>(0.0), dp * p.keep_scale, words >= vec4<u32>(p.threshold));
#endif
        let ds = probability * (dp - own_delta) * p.scale;
        for (var c = 0u; c < D4; c++) {
            gradient[c] += (ds.x * load_qkv(row0, c) + ds.y * load_qkv(row1, c)) + (ds.z * load_qkv(row2, c) + ds.w * load_qkv(row3, c));
        }
    }
    for (var c = 0u; c < D4; c++) {
        store_dqkv(query_row, c, gradient[c]);
    }
}
