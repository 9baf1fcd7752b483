// Causal attention for every type and head size up to 256: a warp a query (or, for the gradients of keys and values, a warp a key), a lane a key (a query)
// at a time, then a lane every 32nd component. All in fp32.
#include "attention.cuh"
typedef ELEMENT T;

const u32 WARPS = 4, MOST = 8; // components a lane

DEVICE float dot(const T* x, const T* y, u32 d) {
    float sum = 0.f;
    for (u32 i = 0; i < d; i++) sum += to_float(x[i]) * to_float(y[i]);
    return sum;
}

KERNEL(attention, Attention, 128) {
    const u32 lane = threadIdx.x % 32, query = blockIdx.x * WARPS + threadIdx.x / 32;
    if (query >= p.s) return;
    const Head h = head_of(p, blockIdx.y);
    const T* q = p.qkv + h.qkv + (u64)query * h.qkv_token;
    float sums[MOST] = {}, max = NEGATIVE_INFINITY, total = 0.f;
    for (u32 first = 0; first <= query; first += 32) {
        const u32 key = first + lane;
        const T* k = p.qkv + h.qkv + (u64)key * h.qkv_token + p.d;
        const float score = key <= query ? p.scale * dot(q, k, p.d) : NEGATIVE_INFINITY;
        const float grown = larger(max, warp_max(score));
        const float old = expf(max - grown), weight = key <= query ? expf(score - grown) : 0.f;
        max = grown;
        total = total * old + warp_sum(weight);
        const float kept = key <= query ? weight * keep_probability(p, h, query, key) : 0.f;
        for (u32 c = 0; c < MOST; c++) sums[c] *= old;
        for (u32 j = 0; j < 32 && first + j <= query; j++) {
            const float w = __shfl_sync(ALL_LANES, kept, j);
            const T* v = p.qkv + h.qkv + (u64)(first + j) * h.qkv_token + 2 * p.d;
#pragma unroll
            for (u32 c = 0; c < MOST; c++)
                if (lane + 32 * c < p.d) sums[c] += w * to_float(v[lane + 32 * c]);
        }
    }
    T* out = p.out + h.out + (u64)query * h.out_token;
#pragma unroll
    for (u32 c = 0; c < MOST; c++)
        if (lane + 32 * c < p.d) out[lane + 32 * c] = Narrow<T>::of(sums[c] / total);
    if (lane == 0) p.lse[h.row + query] = max + logf(total);
}

// delta[q] = dout[q] . out[q].
KERNEL(attention_delta, Attention, 128) {
    const u32 lane = threadIdx.x % 32, query = blockIdx.x * WARPS + threadIdx.x / 32;
    if (query >= p.s) return;
    const Head h = head_of(p, blockIdx.y);
    const u64 at = h.out + (u64)query * h.out_token;
    float sum = 0.f;
    for (u32 i = lane; i < p.d; i += 32) sum += to_float(p.dout[at + i]) * to_float(p.out[at + i]);
    sum = warp_sum(sum);
    if (lane == 0) p.delta[h.row + query] = sum;
}

// For one query and key: the probability with its dropout, and the gradient of the score.
DEVICE void gradients(const Attention& p, const Head& h, u32 query, u32 key, float& kept, float& ds) {
    const T* q = p.qkv + h.qkv + (u64)query * h.qkv_token;
    const T* k = p.qkv + h.qkv + (u64)key * h.qkv_token + p.d;
    const T* dout = p.dout + h.out + (u64)query * h.out_token;
    const float probability = expf(p.scale * dot(q, k, p.d) - p.lse[h.row + query]);
    const float factor = keep_probability(p, h, query, key);
    kept = probability * factor;
    ds = p.scale * probability * (factor * dot(dout, k + p.d, p.d) - p.delta[h.row + query]);
}

KERNEL(attention_queries, Attention, 128) {
    const u32 lane = threadIdx.x % 32, query = blockIdx.x * WARPS + threadIdx.x / 32;
    if (query >= p.s) return;
    const Head h = head_of(p, blockIdx.y);
    float sums[MOST] = {};
    for (u32 first = 0; first <= query; first += 32) {
        float kept = 0.f, ds = 0.f;
        if (first + lane <= query) gradients(p, h, query, first + lane, kept, ds);
        for (u32 j = 0; j < 32 && first + j <= query; j++) {
            const float w = __shfl_sync(ALL_LANES, ds, j);
            const T* k = p.qkv + h.qkv + (u64)(first + j) * h.qkv_token + p.d;
#pragma unroll
            for (u32 c = 0; c < MOST; c++)
                if (lane + 32 * c < p.d) sums[c] += w * to_float(k[lane + 32 * c]);
        }
    }
    T* dq = p.dqkv + h.qkv + (u64)query * h.qkv_token;
#pragma unroll
    for (u32 c = 0; c < MOST; c++)
        if (lane + 32 * c < p.d) dq[lane + 32 * c] = Narrow<T>::of(sums[c]);
}

KERNEL(attention_keys, Attention, 128) {
    const u32 lane = threadIdx.x % 32, key = blockIdx.x * WARPS + threadIdx.x / 32;
    if (key >= p.s) return;
    const Head h = head_of(p, blockIdx.y);
    float keys[MOST] = {}, values[MOST] = {};
    for (u32 first = key; first < p.s; first += 32) {
        float kept = 0.f, ds = 0.f;
        if (first + lane < p.s) gradients(p, h, first + lane, key, kept, ds);
        for (u32 j = 0; j < 32 && first + j < p.s; j++) {
            const float w = __shfl_sync(ALL_LANES, ds, j), v = __shfl_sync(ALL_LANES, kept, j);
            const T* q = p.qkv + h.qkv + (u64)(first + j) * h.qkv_token;
            const T* dout = p.dout + h.out + (u64)(first + j) * h.out_token;
#pragma unroll
            for (u32 c = 0; c < MOST; c++)
                if (lane + 32 * c < p.d) {
                    keys[c] += w * to_float(q[lane + 32 * c]);
                    values[c] += v * to_float(dout[lane + 32 * c]);
                }
        }
    }
    T* dk = p.dqkv + h.qkv + (u64)key * h.qkv_token + p.d;
#pragma unroll
    for (u32 c = 0; c < MOST; c++)
        if (lane + 32 * c < p.d) {
            dk[lane + 32 * c] = Narrow<T>::of(keys[c]);
            dk[p.d + lane + 32 * c] = Narrow<T>::of(values[c]);
        }
}
