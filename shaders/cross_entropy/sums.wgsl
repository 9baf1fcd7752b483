// sum_exp[t] = sum over this rank's columns of exp(logits[t, :] - largest[t]); target_logit[t] = logits[t, targets[t] - first_column] - largest[t], 0
// where another rank holds that column. One workgroup a row.
// Operands: logits [t, v] read · targets [t] read · largest [t] read · sum_exp [t] write · target_logit [t] write. Dispatch: as lib/reduce.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#operand logits read T
#operand targets read u32
#operand largest read f32
#operand sum_exp write f32
#operand target_logit write f32
struct Params {
    logits_at: u32, targets_at: u32, largest_at: u32, sum_exp_at: u32, target_logit_at: u32, rows: u32, v: u32, first_column: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.rows) {
        return;
    }
    let v = p.v / WIDTH;
    let start = p.logits_at + row * v;
    let row_max = largest[p.largest_at + row];
    var sum = T(0.0);
    for (var i = lane; i < v; i += ROW_LANES) {
        sum += exp(logits[start + i] - row_max);
    }
#if WIDE
    let all = sum_lanes((sum.x + sum.y) + (sum.z + sum.w), lane);
#else
    let all = sum_lanes(sum, lane);
#endif
    if (lane == 0u) {
        sum_exp[p.sum_exp_at + row] = all;
        let column = targets[p.targets_at + row] - p.first_column;
        // A column before the first one wraps round and is past the last one.
        if (column < p.v) {
#if WIDE
            target_logit[p.target_logit_at + row] = logits[start + column / 4u][column % 4u] - row_max;
#else
            target_logit[p.target_logit_at + row] = logits[start + column] - row_max;
#endif
        } else {
            target_logit[p.target_logit_at + row] = 0.0;
        }
    }
}
