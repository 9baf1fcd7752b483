// Layer normalisation, gradients of gain and offset, first stage: over a block's rows, in order,
//   partial[block, 0, :] = sum dy n            partial[block, 1, :] = sum dy
// The second stage is that of the bias, on both at once.
// Operands: x [t, h] read · mean [t] read · rstd [t] read · dy [t, h] read · partial [blocks, 2, h] write.
// Dispatch: (columns / lanes, blocks, 1).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand x read T
#operand mean read f32
#operand rstd read f32
#operand dy read T
#operand partial write T
struct Params {
    x_at: u32, mean_at: u32, rstd_at: u32, dy_at: u32, partial_at: u32, rows: u32, h: u32, rows_per_block: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    if (column < p.h) {
        let left = p.h - column;
        let first = group.y * p.rows_per_block;
        var dgamma = vec4<f32>(0.0);
        var dbeta = vec4<f32>(0.0);
        for (var row = first; row < min(first + p.rows_per_block, p.rows); row++) {
            let upstream = load4_dy(row * p.h + column, left);
            dgamma += upstream * ((load4_x(row * p.h + column, left) - load_mean(row)) * load_rstd(row));
            dbeta += upstream;
        }
        store4_partial(group.y * 2u * p.h + column, left, dgamma);
        store4_partial((group.y * 2u + 1u) * p.h + column, left, dbeta);
    }
}
