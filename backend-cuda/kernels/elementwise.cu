// fill, scale, add, reduce: element by element. ELEMENT is what memory holds.
#include "common.cuh"
typedef ELEMENT T;

struct Fill {
    T* x;
    u64 n;
    float value;
    u32 wide;
};
KERNEL(fill, Fill, 256) {
    const float v[4] = {p.value, p.value, p.value, p.value};
    EACH_FOUR(at, p.n) store_four(p.x, at, p.n, p.wide, v);
}

KERNEL(scale, Fill, 256) {
    EACH_FOUR(at, p.n) {
        float v[4];
        load_four(p.x, at, p.n, p.wide, v);
        for (int i = 0; i < 4; i++) v[i] *= p.value;
        store_four(p.x, at, p.n, p.wide, v);
    }
}

struct Add {
    const T* x;
    T* y;
    u64 n;
    float alpha;
    u32 wide;
};
KERNEL(add, Add, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], y[4];
        load_four(p.x, at, p.n, p.wide, x);
        load_four(p.y, at, p.n, p.wide, y);
        for (int i = 0; i < 4; i++) y[i] += p.alpha * x[i];
        store_four(p.y, at, p.n, p.wide, y);
    }
}

// The sums (or maxima) of up to 64 inputs in a balanced binary tree: a binary counter of partial results, level l holding that of 2^l inputs.
const int MOST = 64, LEVELS = 7;
struct Reduce {
    const T* inputs[MOST];
    T* outputs[MOST];
    u64 n;
    u32 count, written, max, wide;
};
DEVICE float both(u32 max, float a, float b) { return max ? larger(a, b) : a + b; }
KERNEL(reduce, Reduce, 256) {
    EACH_FOUR(at, p.n) {
        float level[LEVELS][4];
        for (u32 k = 0; k < p.count; k++) {
            float v[4];
            load_four(p.inputs[k], at, p.n, p.wide, v);
            bool carry = true;
#pragma unroll
            for (int l = 0; l < LEVELS; l++) {
                if (!carry) continue;
                if (k >> l & 1) {
                    for (int i = 0; i < 4; i++) v[i] = both(p.max, level[l][i], v[i]);
                } else {
                    for (int i = 0; i < 4; i++) level[l][i] = v[i];
                    carry = false;
                }
            }
        }
        // What is left over goes up as it is.
        float sum[4];
        bool first = true;
#pragma unroll
        for (int l = 0; l < LEVELS; l++) {
            if (!(p.count >> l & 1)) continue;
            for (int i = 0; i < 4; i++) sum[i] = first ? level[l][i] : both(p.max, level[l][i], sum[i]);
            first = false;
        }
        for (u32 k = 0; k < p.written; k++) store_four(p.outputs[k], at, p.n, p.wide, sum);
    }
}
