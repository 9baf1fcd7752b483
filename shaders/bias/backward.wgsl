// Column sums, second stage: dst[:] += sum of partial[block, :] over the blocks, in order.
// Operands: partial [blocks, n] read · dst [n] in place.
// Dispatch: (columns / lanes, 1, 1).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand partial read T
#operand dst write T
struct Params { partial_at: u32, dst_at: u32, n: u32, blocks: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    if (column < p.n) {
        let left = p.n - column;
        var sum = vec4<f32>(0.0);
        for (var block = 0u; block < p.blocks; block++) {
            sum += load4_partial(block * p.n + column, left);
        }
        store4_dst(column, left, load4_dst(column, left) + sum);
    }
}
