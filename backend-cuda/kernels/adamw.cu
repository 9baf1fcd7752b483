// A step of AdamW over all parameters of a region: they are one buffer.
#include "common.cuh"

struct AdamW {
    float* param;
    const float* grad;
    float* m;
    float* v;
    u64 n;
    float lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2;
    u32 wide;
};
KERNEL(adamw, AdamW, 256) {
    EACH_FOUR(at, p.n) {
        float param[4], g[4], m[4], v[4];
        load_four(p.param, at, p.n, p.wide, param);
        load_four(p.grad, at, p.n, p.wide, g);
        load_four(p.m, at, p.n, p.wide, m);
        load_four(p.v, at, p.n, p.wide, v);
        for (int i = 0; i < 4; i++) {
            g[i] *= p.grad_scale;
            m[i] = p.beta1 * m[i] + (1.f - p.beta1) * g[i];
            v[i] = p.beta2 * v[i] + (1.f - p.beta2) * g[i] * g[i];
            const float direction = m[i] / p.correction1 / (sqrtf(v[i] / p.correction2) + p.eps);
            param[i] -= p.lr * (direction + p.weight_decay * param[i]);
        }
        store_four(p.m, at, p.n, p.wide, m);
        store_four(p.v, at, p.n, p.wide, v);
        store_four(p.param, at, p.n, p.wide, param);
    }
}
