// out[g] = sum over x[g block .. (g + 1) block] of x^2: one workgroup a block, whose bits depend on the block's elements alone. A lane sums what it strides
// over in runs of RUN, so that rounding errors grow slowly, then a tree over the lanes.
// Operands: x [n] read · out [blocks] write. Dispatch: as lib/reduce.
#include "lib/reduce.wgsl"
#operand x read f32
#operand out write f32
struct Params { x_at: u32, out_at: u32, n: u32, blocks: u32, block: u32 }
@group(1) @binding(0) var<uniform> p: Params;

#define RUN 64u

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.blocks) {
        return;
    }
    let end = min((row + 1u) * p.block, p.n);
    var sum = 0.0;
    for (var start = row * p.block + lane; start < end; start += RUN * ROW_LANES) {
        var run = 0.0;
        for (var i = start; i < min(start + RUN * ROW_LANES, end); i += ROW_LANES) {
            let value = x[p.x_at + i];
            run += value * value;
        }
        sum += run;
    }
    let all = sum_lanes(sum, lane);
    if (lane == 0u) {
        out[p.out_at + row] = all;
    }
}
