// Tensor cores and asynchronous copies: wrappers of mma.sync, ldmatrix and cp.async, the only PTX beside the conversions. Twins in twin/tensor.h.
//
// Fragments of m16n8k16, of lane l with g = l / 4 and t = l % 4: a holds rows g, g + 8, g, g + 8 at columns 2t, 2t, 2t + 8, 2t + 8 (and the next); b holds
// column g at rows 2t and 2t + 8 (and the next); c holds row g, columns 2t and 2t + 1, then row g + 8.
#pragma once
#include "common.cuh"

#ifdef CPU_TWIN
#include TWIN_TENSOR
#else
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void load_matrices(u32 (&r)[4], const void* row) {
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
DEVICE void load_transposed(u32 (&r)[4], const void* row) {
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
// 16 bytes from global to shared memory, or zeros.
DEVICE void copy_async(void* to, const void* from, bool there) {
    const u32 at = (u32)__cvta_generic_to_shared(to), bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the newest N groups are there.
template <int N> DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#endif

// Two numbers as one register of a fragment, the first one in its lower half.
template <class T> DEVICE u32 pack(float low, float high) { return (u32)Narrow<T>::of(low).bits | (u32)Narrow<T>::of(high).bits << 16; }

// What lane l addresses so that load_matrices gives a 16 x 16 a-fragment of a tile with `line` elements a row.
template <class T> DEVICE const T* rows_of_a(const T* tile, u32 line, u32 lane) { return tile + (lane % 16) * line + lane / 16 * 8; }
// And load_transposed, of a tile with k along its rows.
template <class T> DEVICE const T* rows_of_a_transposed(const T* tile, u32 line, u32 lane) { return tile + (lane % 8 + lane / 16 * 8) * line + lane / 8 % 2 * 8; }
// b-fragments of two neighbouring n-tiles: of a tile with n along its rows, or (transposed) with k along its rows.
template <class T> DEVICE const T* rows_of_b(const T* tile, u32 line, u32 lane) { return tile + (lane % 8 + lane / 16 * 8) * line + lane / 8 % 2 * 8; }
template <class T> DEVICE const T* rows_of_b_transposed(const T* tile, u32 line, u32 lane) { return tile + (lane % 16) * line + lane / 16 * 8; }

// A 16 x 16 block of numbers, two c-fragments side by side, as an a-fragment: rounded; and what the rounding left, rounded in its turn.
template <class T> DEVICE void as_a(const float (&left)[4], const float (&right)[4], u32 (&a)[4], u32 (&rest)[4]) {
    a[0] = pack<T>(left[0], left[1]), a[1] = pack<T>(left[2], left[3]), a[2] = pack<T>(right[0], right[1]), a[3] = pack<T>(right[2], right[3]);
    rest[0] = pack<T>(left[0] - rounded<T>(left[0]), left[1] - rounded<T>(left[1]));
    rest[1] = pack<T>(left[2] - rounded<T>(left[2]), left[3] - rounded<T>(left[3]));
    rest[2] = pack<T>(right[0] - rounded<T>(right[0]), right[1] - rounded<T>(right[1]));
    rest[3] = pack<T>(right[2] - rounded<T>(right[2]), right[3] - rounded<T>(right[3]));
}
