// Layer normalisation, gradients of the input and, first stage, of gain and offset: one workgroup a block of rows. With n = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - mean_h(g) - n mean_h(g n)), added to dx with ACCUMULATE;
//   partial[block, 0, :] = sum dy n, partial[block, 1, :] = sum dy, over the block's rows, in order.
// The sums by columns come first, since dx may be dy; the rows that they brought near are then taken one by one.
// Operands: x [t, h] read · gamma [h] read · mean [t] read · rstd [t] read · dy [t, h] read · dx [t, h] write · partial [blocks, 2, h] write.
// Dispatch: as lib/reduce, a block of rows a workgroup.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#operand x read T
#operand gamma read T
#operand mean read f32
#operand rstd read f32
#operand dy read T
#operand dx write T
#operand partial write T
struct Params {
    x_at: u32, gamma_at: u32, mean_at: u32, rstd_at: u32, dy_at: u32, dx_at: u32, partial_at: u32,
    rows: u32, h: u32, rows_per_block: u32, blocks: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group, groups);
    if (block >= p.blocks) {
        return;
    }
    let first = block * p.rows_per_block;
    let end = min(first + p.rows_per_block, p.rows);
    for (var i = 4u * lane; i < p.h; i += 4u * ROW_LANES) {
        let left = p.h - i;
        var dgamma = vec4<f32>(0.0);
        var dbeta = vec4<f32>(0.0);
        for (var row = first; row < end; row++) {
            let upstream = load4_dy(row * p.h + i, left);
            dgamma += upstream * ((load4_x(row * p.h + i, left) - load_mean(row)) * load_rstd(row));
            dbeta += upstream;
        }
        store4_partial(block * 2u * p.h + i, left, dgamma);
        store4_partial((block * 2u + 1u) * p.h + i, left, dbeta);
    }
    for (var row = first; row < end; row++) {
        let start = row * p.h;
        let row_mean = load_mean(row);
        let row_rstd = load_rstd(row);
        // What is missing of four has dy = 0, and counts for nothing.
        var sum = vec4<f32>(0.0);
        var product = vec4<f32>(0.0);
        for (var i = 4u * lane; i < p.h; i += 4u * ROW_LANES) {
            let left = p.h - i;
            let g = load4_dy(start + i, left) * load4_gamma(i, left);
            sum += g;
            product += g * ((load4_x(start + i, left) - row_mean) * row_rstd);
        }
        // Its barriers also stand between the sums by columns and the first dx: a lane's columns are the same in both, and no lane reads another's.
        let means = sum_lanes2(vec2<f32>(total(sum), total(product)), lane) / f32(p.h);
        for (var i = 4u * lane; i < p.h; i += 4u * ROW_LANES) {
            let left = p.h - i;
            let g = load4_dy(start + i, left) * load4_gamma(i, left);
            let normal = (load4_x(start + i, left) - row_mean) * row_rstd;
            let d = row_rstd * (g - means.x - normal * means.y);
#if ACCUMULATE
            store4_dx(start + i, left, load4_dx(start + i, left) + d);
#else
            store4_dx(start + i, left, d);
#endif
        }
    }
}
