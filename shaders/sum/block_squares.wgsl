// out[g] = sum over x[g block .. (g + 1) block] of x^2: one workgroup a block, whose bits depend on the block's elements alone. A lane sums what it strides
// over in runs of RUN, so that rounding errors grow slowly, then a tree over the lanes.
// Operands: x [n] read · out [blocks] write. Dispatch: as lib/reduce.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#define RUN 64u
#operand x read T
#operand out write f32
struct Params { x_at: u32, out_at: u32, n: u32, blocks: u32, block: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.blocks) {
        return;
    }
    let end = min((row + 1u) * p.block, p.n);
    var sum = vec4<f32>(0.0);
    for (var start = row * p.block + 4u * lane; start < end; start += 4u * ROW_LANES * RUN) {
        var run = vec4<f32>(0.0);
        for (var i = start; i < min(start + 4u * ROW_LANES * RUN, end); i += 4u * ROW_LANES) {
            let value = load4_x(i, end - i);
            run += value * value;
        }
        sum += run;
    }
    let all = sum_lanes(total(sum), lane);
    if (lane == 0u) {
        store_out(row, all);
    }
}
