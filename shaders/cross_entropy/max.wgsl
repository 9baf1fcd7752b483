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
    let v = p.v / WIDTH;
    let start = p.logits_at + row * v;
    // Lanes past the end of a short row repeat an element: a maximum does not mind, and no infinity is needed.
    var best = logits[start + min(lane, v - 1u)];
    for (var i = lane + ROW_LANES; i < v; i += ROW_LANES) {
        let other = logits[start + i];
#if WIDE
        best = vec4<f32>(
            max_or_nan(best.x, other.x), max_or_nan(best.y, other.y), max_or_nan(best.z, other.z), max_or_nan(best.w, other.w),
        );
#else
        best = max_or_nan(best, other);
#endif
    }
#if WIDE
    tree[lane].x = max_or_nan(max_or_nan(best.x, best.y), max_or_nan(best.z, best.w));
#else
    tree[lane].x = best;
#endif
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) {
            tree[lane].x = max_or_nan(tree[lane].x, tree[lane + half].x);
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        largest[p.largest_at + row] = tree[0].x;
    }
}
