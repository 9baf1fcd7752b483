// Second stage of a sum: total[0] = alpha (sum of the partial sums) + beta total[0]. One workgroup.
// Operands: partial [spans] read · total [1] in place. Dispatch: (1, 1, 1).
#include "lib/reduce.wgsl"
#operand partial read f32
#operand total write f32
struct Params { partial_at: u32, total_at: u32, spans: u32, alpha: f32, beta: f32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.spans; i += ROW_LANES) {
        sum += partial[p.partial_at + i];
    }
    let all = sum_lanes(sum, lane);
    if (lane == 0u) {
        if (p.beta == 0.0) {
            total[p.total_at] = p.alpha * all;
        } else {
            total[p.total_at] = p.alpha * all + p.beta * total[p.total_at];
        }
    }
}
