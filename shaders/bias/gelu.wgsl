// Bias and activation in one pass: x[t, :] += bias, kept for the backward; y = gelu(x).
// Operands: x [t, n] in place · bias [n] read · y [t, n] write. Dispatch: as lib/columns.
#include "lib/gelu.wgsl"
#include "lib/columns.wgsl"
#operand x write T
#operand bias read T
#operand y write T
struct Params { x_at: u32, bias_at: u32, y_at: u32, rows: u32, n: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = p.n / WIDTH;
    let column = group.x * COLUMN_LANES + lane;
    let first = first_row(group, groups);
    if (column < n) {
        let b = bias[p.bias_at + column];
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            let i = row * n + column;
            let value = x[p.x_at + i] + b;
            x[p.x_at + i] = value;
            y[p.y_at + i] = gelu(value);
        }
    }
}
