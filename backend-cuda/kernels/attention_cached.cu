// Attention of new tokens over a cache of keys and values, for every type and head size up to 256: a warp a row and head, a lane a key at a time, then a lane
// every 32nd component. All in fp32; the order does not depend on other rows.
#include "common.cuh"
typedef ELEMENT T;

const u32 WARPS = 4, MOST = 8; // components a lane

struct AttentionCached {
    const T* qkv;
    const u32* places;
    T* cache;
    T* out;
    u64 n, s;
    float scale;
    u32 t, a, d;
};

// Element 0 of key (0) or value (1) k of a head in a slot.
DEVICE u64 entry(const AttentionCached& p, u64 slot, u32 head, u32 which, u64 k) { return (((slot * p.a + head) * 2 + which) * p.s + k) * p.d; }

// First, a block a row puts its keys and values into the cache.
KERNEL(cache_append, AttentionCached, 128) {
    const u32 row = blockIdx.x, *place = p.places + (u64)4 * row;
    if (place[0] >= p.n || place[1] >= p.s) return;
    for (u32 i = threadIdx.x; i < 2 * p.a * p.d; i += 128) {
        const u32 head = i / (2 * p.d), which = i / p.d % 2, c = i % p.d;
        p.cache[entry(p, place[0], head, which, place[1]) + c] = p.qkv[(((u64)row * p.a + head) * 3 + 1 + which) * p.d + c];
    }
}

KERNEL(attention_cached, AttentionCached, 128) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32, head = blockIdx.y;
    if (row >= p.t) return;
    const u32* place = p.places + (u64)4 * row;
    const bool held = place[0] < p.n && place[1] < p.s;
    const u32 end = held ? place[1] + 1 : 0, shared = place[2] < p.n ? place[3] : 0;
    const T* q = p.qkv + ((u64)row * p.a + head) * 3 * p.d;
    float sums[MOST] = {}, max = NEGATIVE_INFINITY, total = 0.f;
    for (u32 first = 0; first < end; first += 32) {
        const u32 key = first + lane;
        float score = NEGATIVE_INFINITY;
        if (key < end) {
            const T* k = p.cache + entry(p, place[key < shared ? 2 : 0], head, 0, key);
            float sum = 0.f;
            for (u32 i = 0; i < p.d; i++) sum += to_float(q[i]) * to_float(k[i]);
            score = p.scale * sum;
        }
        const float grown = larger(max, warp_max(score));
        const float old = expf(max - grown), weight = key < end ? expf(score - grown) : 0.f;
        max = grown;
        total = total * old + warp_sum(weight);
        for (u32 c = 0; c < MOST; c++) sums[c] *= old;
        for (u32 j = 0; j < 32 && first + j < end; j++) {
            const float w = __shfl_sync(ALL_LANES, weight, j);
            const T* v = p.cache + entry(p, place[first + j < shared ? 2 : 0], head, 1, first + j);
#pragma unroll
            for (u32 c = 0; c < MOST; c++)
                if (lane + 32 * c < p.d) sums[c] += w * to_float(v[lane + 32 * c]);
        }
    }
    T* out = p.out + ((u64)row * p.a + head) * p.d;
#pragma unroll
    for (u32 c = 0; c < MOST; c++)
        if (lane + 32 * c < p.d) out[lane + 32 * c] = Narrow<T>::of(held ? sums[c] / total : 0.f);
}
