// AdamW (Loshchilov & Hutter 2019, algorithm 2); the bias corrections come computed in f64.
// Operands: param [n] in place · grad [n] read · m [n] in place · v [n] in place. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#operand param write T
#operand grad read T
#operand m write T
#operand v write T
struct Params {
    param_at: u32, grad_at: u32, m_at: u32, v_at: u32, n: u32,
    lr: f32, beta1: f32, beta2: f32, rest1: f32, rest2: f32, eps: f32, weight_decay: f32, grad_scale: f32,
    correction1: f32, correction2: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            let g = p.grad_scale * load4_grad(at, left);
            let m = p.beta1 * load4_m(at, left) + p.rest1 * g;
            let v = p.beta2 * load4_v(at, left) + p.rest2 * g * g;
            store4_m(at, left, m);
            store4_v(at, left, v);
            let w = load4_param(at, left);
            let step = (m / p.correction1) / (sqrt(v / p.correction2) + p.eps) + p.weight_decay * w;
            store4_param(at, left, w - p.lr * step);
        }
    }
}
