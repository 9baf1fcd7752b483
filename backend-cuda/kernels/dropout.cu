// Dropout, forward or backward.
#include "philox.cuh"
typedef ELEMENT T;

struct Dropout {
    const T* x;
    T* y;
    u64 n, first;
    Mask mask;
    u32 wide;
};
KERNEL(dropout, Dropout, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], factor[4];
        load_four(p.x, at, p.n, p.wide, x);
        keep_four(p.mask, p.first + 4 * at, factor);
        for (int i = 0; i < 4; i++) x[i] *= factor[i];
        store_four(p.y, at, p.n, p.wide, x);
    }
}
