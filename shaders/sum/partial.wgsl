// First stage of a sum: partial[g] = sum over x[g span .. (g + 1) span]. A lane strides the span, then a tree.
// Operands: x [n] read · partial [spans] write. Dispatch: as lib/reduce, one workgroup a span.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#operand x read T
#operand partial write f32
struct Params { x_at: u32, partial_at: u32, n: u32, spans: u32, span: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.spans) {
        return;
    }
    let end = min((row + 1u) * p.span, p.n);
    var sum = vec4<f32>(0.0);
    for (var i = row * p.span + 4u * lane; i < end; i += 4u * ROW_LANES) {
        sum += load4_x(i, end - i);
    }
    let all = sum_lanes(total(sum), lane);
    if (lane == 0u) {
        store_partial(row, all);
    }
}
