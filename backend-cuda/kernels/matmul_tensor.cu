// c = alpha op(a) op(b) + beta c on tensor cores, for bf16 and f16, with the epilogues of matmul.cu. Sums are in fp32, 16 terms at a time in the order of k: an
// element's bits are the same whatever the other extents are and whichever tile it is in.
//
// A block makes a tile of c, a warp a part of it that stays in registers; tiles of the factors come through shared memory, STAGES of them on their way or in
// use. LAYOUT says how the factors lie: 0 a [m, k] and b [n, k] (a linear layer), 1 a [m, k] and b [k, n] (its input's gradient), 2 a [k, m] and b [k, n] (its
// weight's).
#include "gelu.cuh"
#include "tensor.cuh"
typedef ELEMENT T;
typedef RESULT R;

const bool A_ALONG = LAYOUT != 2, B_ALONG = LAYOUT == 0; // terms of a line side by side in memory
const u32 DEPTH = 32, STAGES = 3;
const u32 GROUP = 8; // rows of tiles that neighbouring blocks share: what they read stays in the cache

struct Matmul {
    const T* a;
    const T* b;
    R* c;
    const T* bias; // null: none
    T* activated;  // null: none
    u64 a_batch, b_batch, c_batch; // from one matrix to the next
    u32 m, n, k;
    u32 wide; // bit 0, 1: a, b can be copied 16 bytes at a time; bit 2: two elements of what is written can be stored at a time
    float alpha, beta;
};

// A factor's tile in shared memory, TILE by DEPTH or the other way round as it lies in memory; 16 bytes between rows, so that eight of them meet different banks.
template <u32 TILE, bool ALONG> struct Staged {
    static const u32 ROWS = ALONG ? TILE : DEPTH, COLUMNS = ALONG ? DEPTH : TILE, LINE = COLUMNS + 8, SIZE = ROWS * LINE;
};

// Lines first .. of a factor with `lines`, terms k .. of `terms`; zeros outside.
template <u32 TILE, bool ALONG, u32 THREADS> DEVICE void stage(T* tile, const T* x, u32 first, u32 lines, u32 k, u32 terms, bool wide) {
    typedef Staged<TILE, ALONG> To;
    const u32 row0 = ALONG ? first : k, column0 = ALONG ? k : first, rows = ALONG ? lines : terms, columns = ALONG ? terms : lines;
#pragma unroll
    for (u32 i = threadIdx.x; i < To::ROWS * To::COLUMNS / 8; i += THREADS) {
        const u32 row = i / (To::COLUMNS / 8), column = i % (To::COLUMNS / 8) * 8;
        const bool there = row0 + row < rows && column0 + column < columns;
        const T* source = x + (there ? (u64)(row0 + row) * columns + column0 + column : 0);
        T* to = tile + row * To::LINE + column;
        if (wide) {
            copy_async(to, source, there);
        } else {
            for (u32 e = 0; e < 8; e++) to[e] = there && column0 + column + e < columns ? source[e] : T{0};
        }
    }
}

DEVICE void store_two(float* to, float x, float y) { *(Pair*)to = Pair{__float_as_uint(x), __float_as_uint(y)}; }
template <class E> DEVICE void store_two(E* to, float x, float y) { *(u32*)to = pack<E>(x, y); }

// Two neighbours of a row of c, the second one perhaps beyond it.
DEVICE void finish(const Matmul& p, R* c, u32 row, u32 column, float x, float y) {
    const u64 at = (u64)row * p.n + column;
    const bool both = column + 1 < p.n;
    x *= p.alpha, y *= p.alpha;
    if (p.beta != 0.f) {
        x += p.beta * to_float(c[at]);
        if (both) y += p.beta * to_float(c[at + 1]);
    }
    if (p.bias) {
        x += to_float(p.bias[column]);
        if (both) y += to_float(p.bias[column + 1]);
    }
    // Of what is kept for the backward, as if it had been read back.
    const float u = p.activated ? gelu_of(rounded<R>(x)) : 0.f, v = p.activated ? gelu_of(rounded<R>(y)) : 0.f;
    if (both && (p.wide & 4)) {
        store_two(c + at, x, y);
        if (p.activated) store_two(p.activated + at, u, v);
        return;
    }
    c[at] = Narrow<R>::of(x);
    if (p.activated) p.activated[at] = Narrow<T>::of(u);
    if (!both) return;
    c[at + 1] = Narrow<R>::of(y);
    if (p.activated) p.activated[at + 1] = Narrow<T>::of(v);
}

// A tile of TILE x TILE, made by DOWN x ACROSS warps.
template <u32 TILE, u32 DOWN, u32 ACROSS> DEVICE void product(const Matmul& p, unsigned char* memory) {
    typedef Staged<TILE, A_ALONG> Left;
    typedef Staged<TILE, B_ALONG> Right;
    const u32 THREADS = 32 * DOWN * ACROSS, M = TILE / DOWN, N = TILE / ACROSS;
    T* const tiles = (T*)memory; // [STAGES][Left::SIZE + Right::SIZE]
    const u32 rows = (p.m + TILE - 1) / TILE, columns = (p.n + TILE - 1) / TILE;
    const u32 group = blockIdx.x / (GROUP * columns), within = blockIdx.x % (GROUP * columns), height = min(GROUP, rows - group * GROUP);
    const u32 row0 = (group * GROUP + within % height) * TILE, column0 = within / height * TILE;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 row = warp / ACROSS * M, column = warp % ACROSS * N; // in the tile
    const T* a = p.a + blockIdx.z * p.a_batch;
    const T* b = p.b + blockIdx.z * p.b_batch;
    R* c = p.c + blockIdx.z * p.c_batch;

    const u32 steps = (p.k + DEPTH - 1) / DEPTH;
    auto fetch = [&](u32 step) {
        if (step < steps) {
            T* to = tiles + step % STAGES * (Left::SIZE + Right::SIZE);
            stage<TILE, A_ALONG, THREADS>(to, a, row0, p.m, step * DEPTH, p.k, p.wide & 1);
            stage<TILE, B_ALONG, THREADS>(to + Left::SIZE, b, column0, p.n, step * DEPTH, p.k, p.wide & 2);
        }
        commit_copies();
    };
#pragma unroll
    for (u32 step = 0; step + 1 < STAGES; step++) fetch(step);
    float sums[M / 16][N / 8][4] = {};
    const bool busy = row0 + row < p.m && column0 + column < p.n;
    for (u32 step = 0; step < steps; step++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        // Where the tile before this one was: all are done with it.
        fetch(step + STAGES - 1);
        const T* left = tiles + step % STAGES * (Left::SIZE + Right::SIZE);
        const T* right = left + Left::SIZE;
#pragma unroll
        for (u32 k = 0; k < DEPTH; k += 16) {
            if (!busy || step * DEPTH + k >= p.k) continue;
            u32 x[M / 16][4], y[4];
#pragma unroll
            for (u32 i = 0; i < M / 16; i++)
                if (A_ALONG) load_matrices(x[i], rows_of_a(left + (row + 16 * i) * Left::LINE + k, Left::LINE, lane));
                else load_transposed(x[i], rows_of_a_transposed(left + k * Left::LINE + row + 16 * i, Left::LINE, lane));
#pragma unroll
            for (u32 j = 0; j < N / 8; j += 2) {
                if (B_ALONG) load_matrices(y, rows_of_b(right + (column + 8 * j) * Right::LINE + k, Right::LINE, lane));
                else load_transposed(y, rows_of_b_transposed(right + k * Right::LINE + column + 8 * j, Right::LINE, lane));
#pragma unroll
                for (u32 i = 0; i < M / 16; i++) {
                    mma(sums[i][j], x[i], y[0], y[1], T{});
                    mma(sums[i][j + 1], x[i], y[2], y[3], T{});
                }
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < M / 16; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 at_row = row0 + row + 16 * i + 8 * half + lane / 4;
            if (at_row >= p.m) continue;
#pragma unroll
            for (u32 j = 0; j < N / 8; j++) {
                const u32 at_column = column0 + column + 8 * j + 2 * (lane % 4);
                if (at_column < p.n) finish(p, c, at_row, at_column, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
        }
}

KERNEL(matmul_128, Matmul, 256, 2) {
    DYNAMIC_SHARED(memory);
    product<128, 2, 4>(p, memory);
}

KERNEL(matmul_64, Matmul, 128, 3) {
    DYNAMIC_SHARED(memory);
    product<64, 2, 2>(p, memory);
}
