// Sums: of everything, by pieces of a fixed length; and of the squares of each block.
#include "common.cuh"
typedef ELEMENT T;

const u32 PIECE = 4096;
struct Sum {
    const T* x;
    float* partial;
    float* out;
    u64 n;
    float alpha, beta;
};
KERNEL(sum_pieces, Sum, 256) {
    SHARED(float, scratch, 32);
    const u64 first = (u64)blockIdx.x * PIECE, left = p.n - first;
    const u32 end = left < PIECE ? (u32)left : PIECE;
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < end; i += ROW_THREADS) sum += to_float(p.x[first + i]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) p.partial[blockIdx.x] = sum;
}
KERNEL(sum_all, Sum, 256) {
    SHARED(float, scratch, 32);
    const u64 pieces = (p.n + PIECE - 1) / PIECE;
    float sum = 0.f;
    for (u64 i = threadIdx.x; i < pieces; i += ROW_THREADS) sum += p.partial[i];
    sum = block_sum(sum, scratch);
    // What `out` held is not even looked at where its factor is 0.
    if (threadIdx.x == 0) p.out[0] = p.alpha * sum + (p.beta == 0.f ? 0.f : p.beta * p.out[0]);
}
