// Philox4x32-10 (Salmon et al. 2011), as backend::philox has it: the key is the seed, the counter (index of the block of four, stream).
#pragma once
#include "common.cuh"

struct Mask {
    u64 seed, stream;
    u32 below;   // words below it drop their element
    float scale; // factor of those that are kept
};

DEVICE void philox(const Mask& m, u64 block, u32 (&c)[4]) {
    c[0] = (u32)block, c[1] = (u32)(block >> 32), c[2] = (u32)m.stream, c[3] = (u32)(m.stream >> 32);
    u32 k0 = (u32)m.seed, k1 = (u32)(m.seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        const u32 high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
        c[0] = high1 ^ c[1] ^ k0, c[1] = low1, c[2] = high0 ^ c[3] ^ k1, c[3] = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

DEVICE u32 word_of(const u32 (&c)[4], u32 i) { return i < 2 ? (i == 0 ? c[0] : c[1]) : (i == 2 ? c[2] : c[3]); }

// The factor of element i of the stream, 0 or the scale.
DEVICE float keep(const Mask& m, u64 i) {
    u32 c[4];
    philox(m, i / 4, c);
    return word_of(c, (u32)(i % 4)) >= m.below ? m.scale : 0.f;
}

// The factors of elements first .. first + 4: one block where they begin with it, else two.
DEVICE void keep_four(const Mask& m, u64 first, float (&factor)[4]) {
    u32 c[4], next[4];
    const u32 skip = (u32)(first % 4);
    philox(m, first / 4, c);
    if (skip != 0) philox(m, first / 4 + 1, next);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 word = skip + i < 4 ? word_of(c, skip + i) : word_of(next, skip + i - 4);
        factor[i] = word >= m.below ? m.scale : 0.f;
    }
}
