// dtable[r, :] += sum of dy[t, :] over the places t of row r, in their order, along the lists of backward_links.
// Operands: dy [t, h] read · links [v + t] read · dtable [v, h] in place.
// Dispatch: (columns / lanes, rows folded into y and z).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand dy read T
#operand links read u32
#operand dtable write T
struct Params { dy_at: u32, links_at: u32, dtable_at: u32, t: u32, v: u32, h: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.z * groups.y + group.y;
    let column = first_column(group, lane);
    if (row < p.v && column < p.h) {
        let left = p.h - column;
        var next = load_links(row);
        if (next != 0u) {
            var sum = load4_dtable(row * p.h + column, left);
            for (var i = 0u; i < p.t && next != 0u; i++) {
                sum += load4_dy((next - 1u) * p.h + column, left);
                next = load_links(p.v + next - 1u);
            }
            store4_dtable(row * p.h + column, left, sum);
        }
    }
}
