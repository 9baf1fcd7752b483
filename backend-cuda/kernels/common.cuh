// What every kernel builds on: element types, their conversions, and sums over a warp and a block.
//
// A kernel is `KERNEL(name, Params, threads) { ... }`: it gets one argument, the struct `p`, and is launched with that many threads a block; after them may come
// how many blocks a multiprocessor must have room for. Shared memory is
// declared by `SHARED` and `DYNAMIC_SHARED` alone. Everything here that is PTX or an intrinsic has a twin in C++ (twin/device.h), so that the same file
// runs on a processor; no other header is needed, neither CUDA's nor the system's.
#pragma once

#ifndef CPU_TWIN
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL(name, Params, ...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__) name(const Params p)
#define SHARED(T, name, n) __shared__ __align__(16) T name[n]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif
#define DEVICE static __device__ __forceinline__

// 16-bit elements are their bits; arithmetic is fp32.
struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};

#ifndef CPU_TWIN
DEVICE u16 bf16_bits(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE u16 f16_bits(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE float f16_value(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
#endif

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE float to_float(f16 x) { return f16_value(x.bits); }

template <class T> struct Narrow;
template <> struct Narrow<float> {
    DEVICE float of(float x) { return x; }
};
template <> struct Narrow<bf16> {
    DEVICE bf16 of(float x) { return bf16{bf16_bits(x)}; }
};
template <> struct Narrow<f16> {
    DEVICE f16 of(float x) { return f16{f16_bits(x)}; }
};

// The number that a store of x leaves in memory.
template <class T> DEVICE float rounded(float x) { return to_float(Narrow<T>::of(x)); }

const u32 ALL_LANES = 0xffffffffu;
#define NEGATIVE_INFINITY __uint_as_float(0xff800000u)

// The larger one; NaN if one of them is.
DEVICE float larger(float a, float b) { return a > b || a != a ? a : b; }

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = larger(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

// Threads of a block that works on a row.
const int ROW_THREADS = 256;

// The sum over the block's threads, on each of them. `scratch` holds a float a warp; it may be used again at once.
DEVICE float block_sum(float x, float* scratch) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = ROW_THREADS / 32;
    x = warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : 0.f;
    x = warp_sum(x);
    __syncthreads();
    return x;
}
DEVICE float block_max(float x, float* scratch) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = ROW_THREADS / 32;
    x = warp_max(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : NEGATIVE_INFINITY;
    x = warp_max(x);
    __syncthreads();
    return x;
}

// A word as memory has it, in one access.
struct __align__(8) Pair {
    u32 x, y;
};
struct __align__(16) Quad {
    u32 x, y, z, w;
};

// Elements 4 at .. 4 at + 4 of x, of n; those beyond are 0. `wide` if x begins where four elements may be fetched at once.
DEVICE void load_four(const float* x, u64 at, u64 n, bool wide, float (&v)[4]) {
    if (wide && 4 * at + 4 <= n) {
        const Quad q = ((const Quad*)x)[at];
        v[0] = __uint_as_float(q.x), v[1] = __uint_as_float(q.y), v[2] = __uint_as_float(q.z), v[3] = __uint_as_float(q.w);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = 4 * at + i < n ? x[4 * at + i] : 0.f;
}
template <class T> DEVICE void load_four(const T* x, u64 at, u64 n, bool wide, float (&v)[4]) {
    if (wide && 4 * at + 4 <= n) {
        const Pair q = ((const Pair*)x)[at];
        v[0] = to_float(T{(u16)q.x}), v[1] = to_float(T{(u16)(q.x >> 16)});
        v[2] = to_float(T{(u16)q.y}), v[3] = to_float(T{(u16)(q.y >> 16)});
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = 4 * at + i < n ? to_float(x[4 * at + i]) : 0.f;
}
DEVICE void store_four(float* x, u64 at, u64 n, bool wide, const float (&v)[4]) {
    if (wide && 4 * at + 4 <= n) {
        ((Quad*)x)[at] = Quad{__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])};
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (4 * at + i < n) x[4 * at + i] = v[i];
}
template <class T> DEVICE void store_four(T* x, u64 at, u64 n, bool wide, const float (&v)[4]) {
    u32 b[4];
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = Narrow<T>::of(v[i]).bits;
    if (wide && 4 * at + 4 <= n) {
        ((Pair*)x)[at] = Pair{b[0] | b[1] << 16, b[2] | b[3] << 16};
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (4 * at + i < n) x[4 * at + i] = T{(u16)b[i]};
}

// Each group of four of n elements, shared out among all threads of the grid.
#define EACH_FOUR(at, n) \
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; 4 * at < (n); at += (u64)gridDim.x * blockDim.x)
