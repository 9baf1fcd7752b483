// Vocabulary-parallel cross-entropy in its local pieces: a block a token.
#include "common.cuh"
typedef ELEMENT T;

struct CrossEntropy {
    const T* logits;
    const u32* targets;
    float* max;
    float* sum_exp;
    float* target;
    GRADIENT* dlogits;
    u64 first_column;
    u32 v;
    float scale;
};
// The target's column here, or v where another rank holds it.
DEVICE u32 column_of(const CrossEntropy& p, u64 t) {
    const u64 target = p.targets[t];
    return target >= p.first_column && target - p.first_column < p.v ? (u32)(target - p.first_column) : p.v;
}

KERNEL(cross_entropy_max, CrossEntropy, 256) {
    SHARED(float, scratch, 32);
    const u64 t = blockIdx.x;
    float max = NEGATIVE_INFINITY;
    for (u32 i = threadIdx.x; i < p.v; i += ROW_THREADS) max = larger(max, to_float(p.logits[t * p.v + i]));
    max = block_max(max, scratch);
    if (threadIdx.x == 0) p.max[t] = max;
}

KERNEL(cross_entropy_sums, CrossEntropy, 256) {
    SHARED(float, scratch, 32);
    const u64 t = blockIdx.x;
    const float max = p.max[t];
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < p.v; i += ROW_THREADS) sum += expf(to_float(p.logits[t * p.v + i]) - max);
    sum = block_sum(sum, scratch);
    if (threadIdx.x != 0) return;
    const u32 column = column_of(p, t);
    p.sum_exp[t] = sum;
    p.target[t] = column < p.v ? to_float(p.logits[t * p.v + column]) - max : 0.f;
}

KERNEL(cross_entropy_backward, CrossEntropy, 256) {
    const u64 t = blockIdx.x;
    const float max = p.max[t], sum = p.sum_exp[t];
    const u32 column = column_of(p, t);
    for (u32 i = threadIdx.x; i < p.v; i += ROW_THREADS) {
        const float probability = expf(to_float(p.logits[t * p.v + i]) - max) / sum;
        p.dlogits[t * p.v + i] = Narrow<GRADIENT>::of(p.scale * (probability - (i == column ? 1.f : 0.f)));
    }
}
