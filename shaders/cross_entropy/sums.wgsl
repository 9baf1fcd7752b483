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
    let row_max = load_largest(row);
    var sum = vec4<f32>(0.0);
    for (var column = 4u * lane; column < p.v; column += 4u * ROW_LANES) {
        let left = p.v - column;
        sum += present(exp(load4_logits(row * p.v + column, left) - row_max), left, 0.0);
    }
    let all = sum_lanes(total(sum), lane);
    if (lane == 0u) {
        store_sum_exp(row, all);
        let column = load_targets(row) - p.first_column;
        var hit = 0.0;
        // A column before the first one wraps round and is past the last one.
        if (column < p.v) {
            let first = column - column % 4u;
            hit = load4_logits(row * p.v + first, p.v - first)[column % 4u] - row_max;
        }
        store_target_logit(row, hit);
    }
}
