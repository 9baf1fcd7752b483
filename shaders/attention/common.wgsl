// What the attention kernels share: where rows of qkv [b, s, a, 3, d] and of [b, s, a, d] lie, and what dropout keeps.
// A masked score is -1e30: finite, and far enough below every other that its weight is 0.
#include "lib/wide.wgsl"
#if DROPOUT
#include "lib/philox.wgsl"
#endif
#define MASKED -1.0e30

// First element of query (which = 0), key (1) or value (2) of token t.
fn qkv_row(b: u32, t: u32, head: u32, which: u32) -> u32 {
    return (((b * p.s + t) * p.a + head) * 3u + which) * p.d;
}

fn out_row(b: u32, t: u32, head: u32) -> u32 {
    return ((b * p.s + t) * p.a + head) * p.d;
}

fn statistic(b: u32, t: u32, head: u32) -> u32 {
    return (b * p.a + head) * p.s + t;
}

#if DROPOUT
// Which of the probabilities of query q and keys k .. k + 4 are kept.
fn kept4(b: u32, head: u32, q: u32, k: u32) -> vec4<bool> {
    let sample = add64(vec2<u32>(p.first_low, p.first_high), b);
    let line = add64(mul64(sample, p.heads), p.first_head + head);
    let at = add64(mul64(add64(mul64(line, p.s), q), p.s), k);
    let words = philox_words(at, vec2<u32>(p.stream_low, p.stream_high), vec2<u32>(p.seed_low, p.seed_high));
    return words >= vec4<u32>(p.threshold);
}
#endif
