// Column sums, first stage: partial[block, :] = sum of dy[t, :] over the block's rows, in order.
// Operands: dy [t, n] read · partial [blocks, n] write.
// Dispatch: (columns / lanes, blocks, 1).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand dy read T
#operand partial write T
struct Params { dy_at: u32, partial_at: u32, rows: u32, n: u32, rows_per_block: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    if (column < p.n) {
        let left = p.n - column;
        let first = group.y * p.rows_per_block;
        var sum = vec4<f32>(0.0);
        for (var row = first; row < min(first + p.rows_per_block, p.rows); row++) {
            sum += load4_dy(row * p.n + column, left);
        }
        store4_partial(group.y * p.n + column, left, sum);
    }
}
