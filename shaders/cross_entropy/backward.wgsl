// dlogits[t, j] = scale (exp(logits[t, j] - largest[t]) / sum_exp[t] - [targets[t] = first_column + j]); dlogits may be logits.
// Operands: logits [t, v] read · targets [t] read · largest [t] read · sum_exp [t] read · dlogits [t, v] write. Dispatch: as lib/columns.
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand logits read T
#operand targets read u32
#operand largest read f32
#operand sum_exp read f32
#operand dlogits write T
struct Params {
    logits_at: u32, targets_at: u32, largest_at: u32, sum_exp_at: u32, dlogits_at: u32, rows: u32, v: u32, first_column: u32,
    scale: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    let first = first_row(group, groups);
    if (column < p.v) {
        let left = p.v - column;
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            let at = row * p.v + column;
            let hit = load_targets(row) - p.first_column;
            let probability = exp(load4_logits(at, left) - load_largest(row)) / load_sum_exp(row);
            let one = select(vec4<f32>(0.0), vec4<f32>(1.0), vec4<u32>(hit) == vec4<u32>(0u, 1u, 2u, 3u) + column);
            store4_dlogits(at, left, p.scale * (probability - one));
        }
    }
}
