// What forward and backward of attention share: where things lie, and the dropout of probabilities.
#pragma once
#include "philox.cuh"

// qkv, dqkv [b, s, a, 3, d]; out, dout [b, s, a, d]; lse, delta [b, a, s].
struct Attention {
    const ELEMENT* qkv;
    ELEMENT* out;
    float* lse;
    const ELEMENT* dout;
    ELEMENT* dqkv;
    float* delta;
    u64 first_sample, first_head, heads; // in the whole model: where the dropout's stream begins
    Mask mask;
    float scale;
    u32 b, s, a, d, masked;
};

// A head of a sequence: where its token 0 lies, and how far it is to the next token.
struct Head {
    u64 qkv, out, row, stream;
    u32 qkv_token, out_token;
};
DEVICE Head head_of(const Attention& p, u32 index) {
    const u32 sample = index / p.a, head = index % p.a;
    Head h;
    h.qkv_token = p.a * 3 * p.d, h.out_token = p.a * p.d;
    h.qkv = (u64)sample * p.s * h.qkv_token + (u64)head * 3 * p.d;
    h.out = (u64)sample * p.s * h.out_token + (u64)head * p.d;
    h.row = (u64)index * p.s;
    h.stream = ((p.first_sample + sample) * p.heads + p.first_head + head) * p.s * p.s;
    return h;
}

// The factor of probability [q, k] of the head.
DEVICE float keep_probability(const Attention& p, const Head& h, u32 q, u32 k) {
    return p.masked ? keep(p.mask, h.stream + (u64)q * p.s + k) : 1.f;
}
