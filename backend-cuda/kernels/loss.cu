// loss = ln(sum_exp) - target, of each token.
#include "common.cuh"

struct Loss {
    const float* sum_exp;
    const float* target;
    float* loss;
    u64 n;
};
KERNEL(cross_entropy_loss, Loss, 256) {
    const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.n) p.loss[i] = logf(p.sum_exp[i]) - p.target[i];
}
