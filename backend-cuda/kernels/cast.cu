// dst = src, from SOURCE to ELEMENT, rounded to nearest even.
#include "common.cuh"

struct Cast {
    const SOURCE* src;
    ELEMENT* dst;
    u64 n;
    u32 wide;
};
KERNEL(cast, Cast, 256) {
    EACH_FOUR(at, p.n) {
        float v[4];
        load_four(p.src, at, p.n, p.wide, v);
        store_four(p.dst, at, p.n, p.wide, v);
    }
}
