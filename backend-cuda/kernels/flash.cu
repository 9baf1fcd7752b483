// Causal attention on tensor cores (Dao 2023, "FlashAttention-2", algorithms 1 and 2), for head sizes HEAD that are multiples of 16, in bf16 and f16.
//
// A block has 64 rows of a head, a warp 16 of them; it walks through the other side in tiles of COLUMNS rows, two of which are on their way from memory while
// one is worked on. Forward: queries are the rows, keys and values the tiles. The backward is two kernels, so that nothing is added up across blocks: the
// queries' gradients, and, with the same code the other way round (keys and values as rows, queries and upstream gradients as tiles, scores transposed), those
// of keys and values.
//
// Probabilities and the scores' gradients go through the tensor cores a second time. With EXACT, as two numbers of the narrow type, their rounding and what it
// left: to fp32's accuracy within a few hundred ulp. Without, rounded once, as is usual: two thirds of the work. f16 has little range below 1: with EXACT, what
// the backward multiplies by is brought up row by row, by the power of two that the largest number met so far allows.
#include "attention.cuh"
#include "tensor.cuh"
typedef ELEMENT T;

const u32 D = HEAD, ROWS = 64, THREADS = 128;
const u32 COLUMNS = D <= 96 ? 64 : 32;      // of a tile, forward
const u32 BACK_COLUMNS = D <= 64 ? 64 : D <= 128 ? 32 : 16; // and backward
const u32 LINE = D + 8;                     // elements from row to row: so that eight rows of 16 bytes meet different banks
const float LOG2_E = 1.4426950408889634f;

// What a block does: which head, where its rows begin; `wide` if all operands begin on 16 bytes.
struct Flash {
    Attention attention;
    u32 wide;
};

// Rows first .. first + N of a matrix with HEAD columns, zeros from `end` on; complete after a wait and a barrier.
template <u32 N> DEVICE void stage(T* tile, const T* from, u64 stride, u32 first, u32 end, bool wide) {
    for (u32 i = threadIdx.x; i < N * (D / 8); i += THREADS) {
        const u32 row = i / (D / 8), column = i % (D / 8) * 8;
        const bool there = first + row < end;
        const T* source = from + (there ? first + row : 0) * stride + column;
        T* to = tile + row * LINE + column;
        if (wide) {
            copy_async(to, source, there);
        } else {
            for (u32 k = 0; k < 8; k++) to[k] = there ? source[k] : T{0};
        }
    }
}

// c += rows x tile^T over HEAD: 16 rows of a, N of the tile. Neighbouring pairs of c's fragments.
template <u32 N> DEVICE void scores(float (&c)[N / 8][4], const T* rows, const T* tile, u32 lane) {
#pragma unroll
    for (u32 k = 0; k < D / 16; k++) {
        u32 a[4], b[4];
        load_matrices(a, rows_of_a(rows + 16 * k, LINE, lane));
#pragma unroll
        for (u32 n = 0; n < N / 8; n += 2) {
            load_matrices(b, rows_of_b(tile + 8 * n * LINE + 16 * k, LINE, lane));
            mma(c[n], a, b[0], b[1], T{});
            mma(c[n + 1], a, b[2], b[3], T{});
        }
    }
}

// c += x tile, x 16 rows of N numbers in fp32, the tile N rows of HEAD.
template <u32 N> DEVICE void product(float (&c)[D / 8][4], const float (&x)[N / 8][4], const T* tile, u32 lane) {
#pragma unroll
    for (u32 k = 0; k < N / 16; k++) {
        u32 a[4], rest[4], b[4];
        as_a<T>(x[2 * k], x[2 * k + 1], a, rest);
#pragma unroll
        for (u32 n = 0; n < D / 8; n += 2) {
            load_transposed(b, rows_of_b_transposed(tile + 16 * k * LINE + 8 * n, LINE, lane));
            mma(c[n], a, b[0], b[1], T{});
            mma(c[n + 1], a, b[2], b[3], T{});
            if (EXACT) {
                mma(c[n], rest, b[0], b[1], T{});
                mma(c[n + 1], rest, b[2], b[3], T{});
            }
        }
    }
}

const float MOST = 1.2676506002282294e30f; // 2^100

template <class E> struct Range {
    static const bool narrow = false;
};
template <> struct Range<f16> {
    static const bool narrow = EXACT != 0;
};

// Brings the rows of x up to 2^12, and c to the power of two that they are multiplied by from here on.
template <u32 N> DEVICE void bring_up(float (&c)[D / 8][4], float (&x)[N / 8][4], float (&power)[2]) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float largest = 0.f;
#pragma unroll
        for (u32 n = 0; n < N / 8; n++) largest = larger(largest, larger(fabsf(x[n][2 * half]), fabsf(x[n][2 * half + 1])));
        largest = larger(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = larger(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        const u32 exponent = 127 + 12 + 127 - (__float_as_uint(largest) >> 23 & 255);
        const float allowed = __uint_as_float(min(exponent, 127 + 100) << 23);
        const float ratio = allowed < power[half] ? allowed / power[half] : 1.f;
        power[half] *= ratio;
#pragma unroll
        for (u32 n = 0; n < D / 8; n++) c[n][2 * half] *= ratio, c[n][2 * half + 1] *= ratio;
#pragma unroll
        for (u32 n = 0; n < N / 8; n++) x[n][2 * half] *= power[half], x[n][2 * half + 1] *= power[half];
    }
}

// Factors of the dropout of two probabilities, `step` apart in the stream.
DEVICE void keep_two(const Attention& p, u64 at, u32 step, float (&factor)[2]) {
    u32 c[4];
    philox(p.mask, at / 4, c);
    factor[0] = word_of(c, (u32)(at % 4)) >= p.mask.below ? p.mask.scale : 0.f;
    if ((at + step) / 4 != at / 4) philox(p.mask, (at + step) / 4, c);
    factor[1] = word_of(c, (u32)((at + step) % 4)) >= p.mask.below ? p.mask.scale : 0.f;
}

// Rows of a result, from accumulators to memory.
DEVICE void store_rows(T* to, u64 stride, const float (&c)[D / 8][4], const float (&factor)[2], u32 first, u32 end, u32 lane) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = first + lane / 4 + 8 * half;
        if (row >= end) continue;
#pragma unroll
        for (u32 n = 0; n < D / 8; n++) {
            T* at = to + row * stride + 8 * n + 2 * (lane % 4);
            at[0] = Narrow<T>::of(c[n][2 * half] * factor[half]);
            at[1] = Narrow<T>::of(c[n][2 * half + 1] * factor[half]);
        }
    }
}

static_assert(4 * COLUMNS >= ROWS, "the queries pass through the tiles' memory");

DEVICE void forward(const Attention& p, u32 wide, unsigned char* memory) {
    T* const keys = (T*)memory; // [2][COLUMNS][LINE], and as many values
    T* const values = keys + 2 * COLUMNS * LINE;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Head h = head_of(p, blockIdx.y);
    // The longest rows first.
    const u32 first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    const T *q = p.qkv + h.qkv, *k = q + D, *v = k + D;

    u32 query[D / 16][4];
    stage<ROWS>(keys, q, h.qkv_token, first, p.s, wide);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < D / 16; i++) load_matrices(query[i], rows_of_a(keys + 16 * warp * LINE + 16 * i, LINE, lane));
    __syncthreads();

    const u32 end = min(p.s, first + ROWS), tiles = (end + COLUMNS - 1) / COLUMNS;
    auto fetch = [&](u32 tile) {
        const u32 buffer = tile % 2 * COLUMNS * LINE;
        stage<COLUMNS>(keys + buffer, k, h.qkv_token, tile * COLUMNS, p.s, wide);
        stage<COLUMNS>(values + buffer, v, h.qkv_token, tile * COLUMNS, p.s, wide);
    };
    fetch(0);
    commit_copies();
    float sums[D / 8][4] = {}, max[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, total[2] = {};
    const float exponent = p.scale * LOG2_E;
    const u32 row = first + 16 * warp + lane / 4;
    for (u32 tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) fetch(tile + 1);
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        const u32 buffer = tile % 2 * COLUMNS * LINE;
        float s[COLUMNS / 8][4] = {};
#pragma unroll
        for (u32 i = 0; i < D / 16; i++) {
            u32 b[4];
#pragma unroll
            for (u32 n = 0; n < COLUMNS / 8; n += 2) {
                load_matrices(b, rows_of_b(keys + buffer + 8 * n * LINE + 16 * i, LINE, lane));
                mma(s[n], query[i], b[0], b[1], T{});
                mma(s[n + 1], query[i], b[2], b[3], T{});
            }
        }
        const u32 column = tile * COLUMNS + 2 * (lane % 4);
        float grown[2] = {max[0], max[1]};
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 key = column + 8 * n + i % 2, at = row + i / 2 * 8;
                if (key > at || key >= p.s) s[n][i] = NEGATIVE_INFINITY;
                grown[i / 2] = larger(grown[i / 2], s[n][i]);
            }
        // A row is four lanes'.
        float old[2];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            grown[half] = larger(grown[half], __shfl_xor_sync(ALL_LANES, grown[half], 1));
            grown[half] = larger(grown[half], __shfl_xor_sync(ALL_LANES, grown[half], 2));
            old[half] = exp2f((max[half] - grown[half]) * exponent);
            max[half] = grown[half];
            total[half] *= old[half];
        }
#pragma unroll
        for (u32 n = 0; n < D / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums[n][i] *= old[i / 2];
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                s[n][i] = exp2f((s[n][i] - max[i / 2]) * exponent);
                total[i / 2] += s[n][i];
            }
        if (p.masked)
#pragma unroll
            for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    float factor[2];
                    keep_two(p, h.stream + (u64)(row + 8 * half) * p.s + column + 8 * n, 1, factor);
                    s[n][2 * half] *= factor[0], s[n][2 * half + 1] *= factor[1];
                }
        product<COLUMNS>(sums, s, values + buffer, lane);
        __syncthreads();
    }
    float inverse[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 1);
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 2);
        inverse[half] = 1.f / total[half];
        if (lane % 4 == 0 && row + 8 * half < p.s) p.lse[h.row + row + 8 * half] = max[half] * p.scale + logf(total[half]);
    }
    store_rows(p.out + h.out, h.out_token, sums, inverse, first + 16 * warp, p.s, lane);
}

// Both gradients. Rows of this block: `first_rows` and `second_rows`, (queries, upstream) or (keys, values); tiles: (keys, values) or (queries, upstream).
template <bool QUERIES> DEVICE void backward(const Attention& p, u32 wide, unsigned char* memory) {
    const u32 N = BACK_COLUMNS;
    T* const rows = (T*)memory; // [2][ROWS][LINE]: first and second
    T* const tiles = rows + 2 * ROWS * LINE; // [2][2][N][LINE]
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Head h = head_of(p, blockIdx.y);
    const u32 first = (QUERIES ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * ROWS;
    const T *q = p.qkv + h.qkv, *dout = p.dout + h.out;
    const T *a1 = QUERIES ? q : q + D, *a2 = QUERIES ? dout : q + 2 * D;
    const T *b1 = QUERIES ? q + D : q, *b2 = QUERIES ? q + 2 * D : dout;
    const u64 a2_stride = QUERIES ? h.out_token : h.qkv_token, b2_stride = QUERIES ? h.qkv_token : h.out_token;
    stage<ROWS>(rows, a1, h.qkv_token, first, p.s, wide);
    stage<ROWS>(rows + ROWS * LINE, a2, a2_stride, first, p.s, wide);
    // Queries see the keys up to themselves; keys are seen by the queries from themselves on.
    const u32 begin = QUERIES ? 0 : first / N, end = QUERIES ? min(p.s, first + ROWS) : p.s, last = (end + N - 1) / N;
    auto fetch = [&](u32 tile) {
        T* to = tiles + tile % 2 * 2 * N * LINE;
        stage<N>(to, b1, h.qkv_token, tile * N, p.s, wide);
        stage<N>(to + N * LINE, b2, b2_stride, tile * N, p.s, wide);
    };
    fetch(begin);
    commit_copies();
    float c1[D / 8][4] = {}, c2[QUERIES ? 1 : D / 8][4] = {};
    float power1[2] = {MOST, MOST}, power2[2] = {MOST, MOST};
    const float exponent = p.scale * LOG2_E;
    const u32 row = first + 16 * warp + lane / 4;
    for (u32 tile = begin; tile < last; tile++) {
        if (tile + 1 < last) fetch(tile + 1);
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        const T* t1 = tiles + tile % 2 * 2 * N * LINE;
        const T* t2 = t1 + N * LINE;
        float s[N / 8][4] = {}, ds[N / 8][4] = {};
        scores<N>(s, rows + 16 * warp * LINE, t1, lane);
        scores<N>(ds, rows + (ROWS + 16 * warp) * LINE, t2, lane);
        const u32 column = tile * N + 2 * (lane % 4);
#pragma unroll
        for (u32 n = 0; n < N / 8; n++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const u32 r = row + 8 * half, c = column + 8 * n;
                float factor[2] = {1.f, 1.f};
                // Neighbouring columns are keys of one query, or queries of one key.
                if (p.masked) keep_two(p, h.stream + (QUERIES ? (u64)r * p.s + c : (u64)c * p.s + r), QUERIES ? 1 : p.s, factor);
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    const u32 query = QUERIES ? r : c + i, key = QUERIES ? c + i : r;
                    const bool seen = key <= query && query < p.s;
                    const float lse = seen ? p.lse[h.row + query] : 0.f, delta = seen ? p.delta[h.row + query] : 0.f;
                    float& score = s[n][2 * half + i];
                    float& gradient = ds[n][2 * half + i];
                    const float probability = seen ? exp2f(score * exponent - lse * LOG2_E) : 0.f;
                    gradient = p.scale * probability * (factor[i] * gradient - delta);
                    score = probability * factor[i];
                }
            }
        if constexpr (Range<T>::narrow) bring_up<N>(c1, ds, power1);
        product<N>(c1, ds, t1, lane);
        if constexpr (!QUERIES) {
            if constexpr (Range<T>::narrow) bring_up<N>(c2, s, power2);
            product<N>(c2, s, t2, lane);
        }
        __syncthreads();
    }
    const bool narrow = Range<T>::narrow;
    const float down1[2] = {narrow ? 1.f / power1[0] : 1.f, narrow ? 1.f / power1[1] : 1.f};
    const float down2[2] = {narrow ? 1.f / power2[0] : 1.f, narrow ? 1.f / power2[1] : 1.f};
    T* const to = p.dqkv + h.qkv;
    store_rows(QUERIES ? to : to + D, h.qkv_token, c1, down1, first + 16 * warp, p.s, lane);
    if constexpr (!QUERIES) store_rows(to + 2 * D, h.qkv_token, c2, down2, first + 16 * warp, p.s, lane);
}

KERNEL(flash, Flash, 128, 2) {
    DYNAMIC_SHARED(memory);
    forward(p.attention, p.wide, memory);
}

KERNEL(flash_queries, Flash, 128, 2) {
    DYNAMIC_SHARED(memory);
    backward<true>(p.attention, p.wide, memory);
}

KERNEL(flash_keys, Flash, 128, 2) {
    DYNAMIC_SHARED(memory);
    backward<false>(p.attention, p.wide, memory);
}
