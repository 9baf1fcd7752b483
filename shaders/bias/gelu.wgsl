// Bias and activation in one pass: x[t, :] += bias, kept for the backward; y = gelu(x).
// Operands: x [t, n] in place · bias [n] read · y [t, n] write. Dispatch: as lib/columns.
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#include "lib/gelu.wgsl"
#operand x write T
#operand bias read T
#operand y write T
struct Params { x_at: u32, bias_at: u32, y_at: u32, rows: u32, n: u32 }
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
            // The activation is that of what is kept, rounded as it is: the backward and whoever makes y anew start from that.
            let value = rounded_x(load4_x(at, left) + b);
            store4_x(at, left, value);
            store4_y(at, left, gelu(value));
        }
    }
}
