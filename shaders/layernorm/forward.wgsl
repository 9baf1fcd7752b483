// Layer normalisation, forward: one workgroup a row, whose lanes stride it.
//   pass 1  mean = sum(x) / h            pass 2  var = sum((x - mean)^2) / h            pass 3  y = (x - mean) rstd gamma + beta
// Operands: x [t, h] read · gamma [h] read · beta [h] read · y [t, h] write · mean [t] write · rstd [t] write. y may be x.
// Dispatch: as lib/reduce; workgroups past t leave together, so that barriers stay uniform.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#operand x read T
#operand gamma read T
#operand beta read T
#operand y write T
#operand mean write f32
#operand rstd write f32
struct Params {
    x_at: u32, gamma_at: u32, beta_at: u32, y_at: u32, mean_at: u32, rstd_at: u32, rows: u32, h: u32, eps: f32,
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
    let start = p.x_at + row * h;
    var sum = T(0.0);
    for (var i = lane; i < h; i += ROW_LANES) {
        sum += x[start + i];
    }
    let row_mean = sum_lanes(total(sum), lane) / f32(p.h);
    var squares = T(0.0);
    for (var i = lane; i < h; i += ROW_LANES) {
        let centred = x[start + i] - row_mean;
        squares += centred * centred;
    }
    let row_rstd = 1.0 / sqrt(sum_lanes(total(squares), lane) / f32(p.h) + p.eps);
    for (var i = lane; i < h; i += ROW_LANES) {
        let normal = (x[start + i] - row_mean) * row_rstd;
        y[p.y_at + row * h + i] = normal * gamma[p.gamma_at + i] + beta[p.beta_at + i];
    }
    if (lane == 0u) {
        mean[p.mean_at + row] = row_mean;
        rstd[p.rstd_at + row] = row_rstd;
    }
}
