// Floats in the types of device memory, for libraries that number them each in its own way: F32 and F16 are a library's numbers, any other is bf16's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

template <int F32, int F16> struct Numbers {
    static float load(const void* at, int type, size_t i) {
        if (type == F32) return ((const float*)at)[i];
        const uint16_t bits = ((const uint16_t*)at)[i];
        if (type == F16) {
            _Float16 x;
            memcpy(&x, &bits, 2);
            return (float)x;
        }
        const uint32_t wide = (uint32_t)bits << 16;
        float x;
        memcpy(&x, &wide, 4);
        return x;
    }
    static void store(void* at, int type, size_t i, float x) {
        if (type == F32) {
            ((float*)at)[i] = x;
        } else if (type == F16) {
            const _Float16 narrow = (_Float16)x;
            memcpy((uint16_t*)at + i, &narrow, 2);
        } else {
            uint32_t bits;
            memcpy(&bits, &x, 4);
            ((uint16_t*)at)[i] = x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        }
    }
};
