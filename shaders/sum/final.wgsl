// Second stage of a sum: out[0] = alpha (sum of the partial sums) + beta out[0]. One workgroup.
// Operands: partial [spans] read · out [1] in place. Dispatch: (1, 1, 1).
#include "lib/reduce.wgsl"
#operand partial read f32
#operand out write f32
struct Params { partial_at: u32, out_at: u32, spans: u32, alpha: f32, beta: f32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.spans; i += ROW_LANES) {
        sum += load_partial(i);
    }
    let all = sum_lanes(sum, lane);
    if (lane == 0u) {
        var result = p.alpha * all;
        if (p.beta != 0.0) {
            result += p.beta * load_out(0u);
        }
        store_out(0u, result);
    }
}
