// GELU and its gradient.
#include "gelu.cuh"
typedef ELEMENT T;

struct Gelu {
    const T* x;
    T* y;
    u64 n;
    u32 wide;
};
KERNEL(gelu, Gelu, 256) {
    EACH_FOUR(at, p.n) {
        float v[4];
        load_four(p.x, at, p.n, p.wide, v);
        for (int i = 0; i < 4; i++) v[i] = gelu_of(v[i]);
        store_four(p.y, at, p.n, p.wide, v);
    }
}

struct GeluBackward {
    const T* x;
    const T* dy;
    T* dx;
    u64 n;
    u32 wide;
};
KERNEL(gelu_backward, GeluBackward, 256) {
    EACH_FOUR(at, p.n) {
        float x[4], dy[4];
        load_four(p.x, at, p.n, p.wide, x);
        load_four(p.dy, at, p.n, p.wide, dy);
        for (int i = 0; i < 4; i++) x[i] = gelu_slope(x[i]) * dy[i];
        store_four(p.dx, at, p.n, p.wide, x);
    }
}
