// The end of a residual branch: y = residual + dropout(x + bias); y may be the residual.
// Operands: x [t, h] read · bias [h] read · residual [t, h] read · y [t, h] write. Dispatch: as lib/columns.
// DROPOUT: with a mask.
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#if DROPOUT
#include "lib/dropout.wgsl"
#endif
#operand x read T
#operand bias read T
#operand residual read T
#operand y write T
struct Params {
    x_at: u32, bias_at: u32, residual_at: u32, y_at: u32, rows: u32, n: u32,
    seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
    threshold: u32, keep_scale: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    let first = first_row(group, groups);
    if (column < p.n) {
        let left = p.n - column;
        let b = load4_bias(column, left);
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            let at = row * p.n + column;
            let branch = load4_x(at, left) + b;
#if DROPOUT
            store4_y(at, left, load4_residual(at, left) + drop_out(branch, at));
#else
            store4_y(at, left, load4_residual(at, left) + branch);
#endif
        }
    }
}
