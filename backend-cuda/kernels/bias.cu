// A row added to every row, alone and fused with what follows it, and its gradient.
#include "gelu.cuh"
#include "philox.cuh"
typedef ELEMENT T;

// Element i's column: rows are as long as the bias.
struct Bias {
    T* x;
    const T* bias;
    T* y;
    u64 n; // elements of x
    u32 columns, wide;
};
// Four elements of the bias, those of elements 4 at .. of x: in one access where no row ends among them.
DEVICE void bias_four(const T* bias, u32 columns, u64 at, bool wide, float (&b)[4]) {
    if (columns % 4 == 0) return load_four(bias, (4 * at % columns) / 4, columns, wide, b);
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = to_float(bias[(4 * at + i) % columns]);
}

KERNEL(bias_add, Bias, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], b[4];
        load_four(p.x, at, p.n, p.wide, x);
        bias_four(p.bias, p.columns, at, p.wide, b);
        for (int i = 0; i < 4; i++) x[i] += b[i];
        store_four(p.x, at, p.n, p.wide, x);
    }
}

KERNEL(bias_gelu, Bias, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], b[4];
        load_four(p.x, at, p.n, p.wide, x);
        bias_four(p.bias, p.columns, at, p.wide, b);
        // Of what is kept for the backward, as if it had been read back.
        for (int i = 0; i < 4; i++) x[i] = rounded<T>(x[i] + b[i]);
        store_four(p.x, at, p.n, p.wide, x);
        for (int i = 0; i < 4; i++) x[i] = gelu_of(x[i]);
        store_four(p.y, at, p.n, p.wide, x);
    }
}

struct BiasDropoutResidual {
    const T* x;
    const T* bias;
    const T* residual;
    T* y;
    u64 n, first;
    Mask mask;
    u32 columns, masked, wide;
};
KERNEL(bias_dropout_residual, BiasDropoutResidual, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], b[4], r[4], factor[4] = {1.f, 1.f, 1.f, 1.f};
        load_four(p.x, at, p.n, p.wide, x);
        load_four(p.residual, at, p.n, p.wide, r);
        bias_four(p.bias, p.columns, at, p.wide, b);
        if (p.masked) keep_four(p.mask, p.first + 4 * at, factor);
        for (int i = 0; i < 4; i++) r[i] += (x[i] + b[i]) * factor[i];
        store_four(p.y, at, p.n, p.wide, r);
    }
}

// The gradient: pieces of PIECE rows into the workspace [pieces, n], one thread a column; then the pieces.
const u32 PIECE = 128;
struct BiasBackward {
    const T* dy;
    float* partial;
    float* dbias;
    u32 rows, columns;
};
KERNEL(bias_pieces, BiasBackward, 128) {
    const u32 column = blockIdx.x * 128 + threadIdx.x;
    if (column >= p.columns) return;
    const u32 first = blockIdx.y * PIECE, end = min(p.rows, first + PIECE);
    float sum = 0.f;
    for (u32 row = first; row < end; row++) sum += to_float(p.dy[(u64)row * p.columns + column]);
    p.partial[(u64)blockIdx.y * p.columns + column] = sum;
}
KERNEL(bias_sum, BiasBackward, 128) {
    const u32 column = blockIdx.x * 128 + threadIdx.x;
    if (column >= p.columns) return;
    const u32 pieces = (p.rows + PIECE - 1) / PIECE;
    float sum = 0.f;
    for (u32 piece = 0; piece < pieces; piece++) sum += p.partial[(u64)piece * p.columns + column];
    p.dbias[column] += sum;
}
