// c = alpha op(a) op(b) + beta c in fp32, tile by tile: for every type, stride and epilogue. An element is one sum in the order of k, whatever the other
// extents are. bf16 and f16 come here only with both factors transposed; matmul_tensor.cu has the rest.
//
// A block makes TILE x TILE elements of c, a thread 4 x 4 of them: rows 4 y .. and columns 4 x .. of the tile.
#include "gelu.cuh"
typedef ELEMENT T;
typedef RESULT R;

const u32 TILE = 64, DEPTH = 16;
typedef float Line[TILE + 4];

struct Matmul {
    const T* a;
    const T* b;
    R* c;
    const T* bias; // null: none
    T* activated;  // null: none
    u64 a_batch, b_batch, c_batch; // from one matrix to the next
    u32 m, n, k;
    u32 a_row, a_column, b_row, b_column; // strides: of either pair one is 1
    float alpha, beta;
};

// Elements [first, first + TILE) x [k, k + DEPTH) of a matrix with these strides, into `tile[depth][row]`; 0 outside. Neighbouring threads read
// neighbours in memory.
DEVICE void stage(const T* x, u32 stride, u32 stride_k, u32 first, u32 end, u32 k, u32 end_k, Line* tile) {
#pragma unroll
    for (u32 i = 0; i < TILE * DEPTH / 256; i++) {
        const u32 at = threadIdx.x + 256 * i;
        const u32 row = stride_k == 1 ? at / DEPTH : at % TILE, depth = stride_k == 1 ? at % DEPTH : at / TILE;
        const bool inside = first + row < end && k + depth < end_k;
        tile[depth][row] = inside ? to_float(x[(u64)(first + row) * stride + (u64)(k + depth) * stride_k]) : 0.f;
    }
}

KERNEL(matmul, Matmul, 256) {
    SHARED(Line, left, DEPTH);
    SHARED(Line, right, DEPTH);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    const T* a = p.a + blockIdx.z * p.a_batch;
    const T* b = p.b + blockIdx.z * p.b_batch;
    R* c = p.c + blockIdx.z * p.c_batch;
    float sum[4][4] = {};
    for (u32 k = 0; k < p.k; k += DEPTH) {
        stage(a, p.a_row, p.a_column, first_row, p.m, k, p.k, left);
        stage(b, p.b_column, p.b_row, first_column, p.n, k, p.k, right);
        __syncthreads();
#pragma unroll
        for (u32 depth = 0; depth < DEPTH; depth++) {
            float l[4], r[4];
#pragma unroll
            for (int i = 0; i < 4; i++) l[i] = left[depth][4 * y + i], r[i] = right[depth][4 * x + i];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += l[i] * r[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 row = first_row + 4 * y + i, column = first_column + 4 * x + j;
            if (row >= p.m || column >= p.n) continue;
            const u64 at = (u64)row * p.n + column;
            float value = p.alpha * sum[i][j];
            if (p.beta != 0.f) value += p.beta * to_float(c[at]);
            if (p.bias) value += to_float(p.bias[column]);
            c[at] = Narrow<R>::of(value);
            // Of what is kept for the backward, as if it had been read back.
            if (p.activated) p.activated[at] = Narrow<T>::of(gelu_of(rounded<R>(value)));
        }
}
