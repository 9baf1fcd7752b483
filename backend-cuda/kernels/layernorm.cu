// LayerNorm and its gradients: a block a row for what is a row's, a thread a column for the parameters'.
#include "common.cuh"
typedef ELEMENT T;

struct LayerNorm {
    const T* x;
    const T* gamma;
    const T* beta;
    T* y;
    float* mean;
    float* rstd;
    u32 h;
    float eps;
};
KERNEL(layernorm, LayerNorm, 256) {
    SHARED(float, scratch, 32);
    const u64 row = blockIdx.x;
    const T* x = p.x + row * p.h;
    T* y = p.y + row * p.h;
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < p.h; i += ROW_THREADS) sum += to_float(x[i]);
    const float mean = block_sum(sum, scratch) / (float)p.h;
    float squares = 0.f;
    for (u32 i = threadIdx.x; i < p.h; i += ROW_THREADS) {
        const float centred = to_float(x[i]) - mean;
        squares += centred * centred;
    }
    const float rstd = 1.f / sqrtf(block_sum(squares, scratch) / (float)p.h + p.eps);
    for (u32 i = threadIdx.x; i < p.h; i += ROW_THREADS)
        y[i] = Narrow<T>::of((to_float(x[i]) - mean) * rstd * to_float(p.gamma[i]) + to_float(p.beta[i]));
    if (threadIdx.x == 0) p.mean[row] = mean, p.rstd[row] = rstd;
}

struct LayerNormBackward {
    const T* x;
    const T* gamma;
    const float* mean;
    const float* rstd;
    const T* dy;
    T* dx;
    float* dgamma;
    float* dbeta;
    float* partial; // [pieces, 2, h]
    u32 rows, h, accumulate;
};
KERNEL(layernorm_backward, LayerNormBackward, 256) {
    SHARED(float, scratch, 32);
    const u64 row = blockIdx.x;
    const T* x = p.x + row * p.h;
    const T* dy = p.dy + row * p.h;
    T* dx = p.dx + row * p.h;
    const float mean = p.mean[row], rstd = p.rstd[row];
    float sum = 0.f, sum_n = 0.f;
    for (u32 i = threadIdx.x; i < p.h; i += ROW_THREADS) {
        const float g = to_float(dy[i]) * to_float(p.gamma[i]);
        sum += g;
        sum_n += g * ((to_float(x[i]) - mean) * rstd);
    }
    const float mean_g = block_sum(sum, scratch) / (float)p.h;
    const float mean_gn = block_sum(sum_n, scratch) / (float)p.h;
    for (u32 i = threadIdx.x; i < p.h; i += ROW_THREADS) {
        const float g = to_float(dy[i]) * to_float(p.gamma[i]), n = (to_float(x[i]) - mean) * rstd;
        const float gradient = rstd * (g - mean_g - n * mean_gn);
        dx[i] = Narrow<T>::of(p.accumulate ? to_float(dx[i]) + gradient : gradient);
    }
}

// Gradients of gain and offset: pieces of PIECE rows, then the pieces.
const u32 PIECE = 64;
KERNEL(layernorm_pieces, LayerNormBackward, 128) {
    const u32 column = blockIdx.x * 128 + threadIdx.x;
    if (column >= p.h) return;
    const u32 first = blockIdx.y * PIECE, end = min(p.rows, first + PIECE);
    float gamma = 0.f, beta = 0.f;
    for (u32 row = first; row < end; row++) {
        const u64 at = (u64)row * p.h + column;
        const float dy = to_float(p.dy[at]);
        gamma += dy * ((to_float(p.x[at]) - p.mean[row]) * p.rstd[row]);
        beta += dy;
    }
    p.partial[2ull * blockIdx.y * p.h + column] = gamma;
    p.partial[(2ull * blockIdx.y + 1) * p.h + column] = beta;
}
KERNEL(layernorm_sum, LayerNormBackward, 128) {
    const u32 column = blockIdx.x * 128 + threadIdx.x;
    if (column >= p.h) return;
    const u32 pieces = (p.rows + PIECE - 1) / PIECE;
    float gamma = 0.f, beta = 0.f;
    for (u32 piece = 0; piece < pieces; piece++) {
        gamma += p.partial[2ull * piece * p.h + column];
        beta += p.partial[(2ull * piece + 1) * p.h + column];
    }
    p.dgamma[column] += gamma;
    p.dbeta[column] += beta;
}
