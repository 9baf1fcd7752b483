// Layer normalisation, gradient of the input: one workgroup a row. With n = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - mean_h(g) - n mean_h(g n)), added to dx with ACCUMULATE.
// Operands: x [t, h] read · gamma [h] read · mean [t] read · rstd [t] read · dy [t, h] read · dx [t, h] write. dx may be dy.
// Dispatch: as lib/reduce.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#operand x read T
#operand gamma read T
#operand mean read f32
#operand rstd read f32
#operand dy read T
#operand dx write T
struct Params {
    x_at: u32, gamma_at: u32, mean_at: u32, rstd_at: u32, dy_at: u32, dx_at: u32, rows: u32, h: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

#if WIDE
fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
#else
fn total(v: f32) -> f32 {
    return v;
}
#endif

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.rows) {
        return;
    }
    let h = p.h / WIDTH;
    let row_mean = mean[p.mean_at + row];
    let row_rstd = rstd[p.rstd_at + row];
    var sum = T(0.0);
    var product = T(0.0);
    for (var i = lane; i < h; i += ROW_LANES) {
        let g = dy[p.dy_at + row * h + i] * gamma[p.gamma_at + i];
        sum += g;
        product += g * ((x[p.x_at + row * h + i] - row_mean) * row_rstd);
    }
    let means = sum_lanes2(vec2<f32>(total(sum), total(product)), lane) / f32(p.h);
    for (var i = lane; i < h; i += ROW_LANES) {
        let g = dy[p.dy_at + row * h + i] * gamma[p.gamma_at + i];
        let normal = (x[p.x_at + row * h + i] - row_mean) * row_rstd;
        let d = row_rstd * (g - means.x - normal * means.y);
#if ACCUMULATE
        dx[p.dx_at + row * h + i] += d;
#else
        dx[p.dx_at + row * h + i] = d;
#endif
    }
}
