// largest[t] = max over logits[t, :], NaN if one of them is: one workgroup a row.
// Operands: logits [t, v] read · largest [t] write. Dispatch: as lib/reduce.
#include "lib/wide.wgsl"
#include "lib/reduce.wgsl"
#include "lib/nan.wgsl"
#operand logits read T
#operand largest write f32
struct Params { logits_at: u32, largest_at: u32, rows: u32, v: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group, groups);
    if (row >= p.rows) {
        return;
    }
    // Lanes past the end of a short row repeat an element, as what is missing of four does: a maximum does not mind, and no infinity is needed.
    var best = four(row, min(4u * lane, (p.v - 1u) / 4u * 4u));
    for (var column = 4u * (lane + ROW_LANES); column < p.v; column += 4u * ROW_LANES) {
        best = max_or_nan4(best, four(row, column));
    }
    tree[lane].x = max_or_nan(max_or_nan(best.x, best.y), max_or_nan(best.z, best.w));
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) {
            tree[lane].x = max_or_nan(tree[lane].x, tree[lane + half].x);
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        store_largest(row, tree[0].x);
    }
}

fn four(row: u32, column: u32) -> vec4<f32> {
    let left = p.v - column;
    let v = load4_logits(row * p.v + column, left);
    return present(v, left, v.x);
}
