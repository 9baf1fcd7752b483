// What the attention kernels share: where rows of qkv [b, s, a, 3, d] and of [b, s, a, d] lie, and the dropout's words.
// D4 is ceil(d / 4): a lane keeps a row of a head as D4 vectors, the last one filled up with zeros.
#include "lib/wide.wgsl"
#if DROPOUT
#include "lib/philox.wgsl"
#endif

// Lanes of a workgroup: each has a query of its own (a key, where gradients of keys are made); all read the same key (query) at a time.
#define ATTENTION_LANES 32u

// First element of query (which = 0), key (1) or value (2) of token t.
fn qkv_row(b: u32, t: u32, head: u32, which: u32) -> u32 {
    return (((b * p.s + t) * p.a + head) * 3u + which) * p.d;
}

fn out_row(b: u32, t: u32, head: u32) -> u32 {
    return ((b * p.s + t) * p.a + head) * p.d;
}

#if DROPOUT
// Index of probability [b, head, q, 0] in the stream.
fn dropout_row(b: u32, head: u32, q: u32) -> vec2<u32> {
    let sample = add64(vec2<u32>(p.first_low, p.first_high), b);
    let line = add64(mul64(sample, p.heads), p.first_head + head);
    return mul64(add64(mul64(line, p.s), q), p.s);
}
#endif
