// The sum of squares of each block of elements: a warp a block, so that its order knows the block alone.
#include "common.cuh"

struct BlockSquares {
    const float* x;
    float* out;
    u64 n, block, blocks;
};
KERNEL(block_squares, BlockSquares, 256) {
    const u64 index = (u64)blockIdx.x * 8 + threadIdx.x / 32;
    if (index >= p.blocks) return;
    const u64 first = index * p.block, end = first + p.block < p.n ? first + p.block : p.n;
    float sum = 0.f;
    for (u64 i = first + threadIdx.x % 32; i < end; i += 32) sum += p.x[i] * p.x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) p.out[index] = sum;
}
