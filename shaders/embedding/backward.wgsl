// dtable[r, :] += sum of dy[t, :] over the places t of row r, in their order, along the lists of backward_links. A workgroup a token: the first of a row's
// does the row, the others have nothing to do, and rows without tokens cost nothing.
// Operands: dy [t, h] read · tokens [t] read · links [v + t] read · dtable [v, h] in place.
// Dispatch: (columns / lanes, tokens folded into y and z).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand dy read T
#operand tokens read u32
#operand links read u32
#operand dtable write T
struct Params { dy_at: u32, tokens_at: u32, links_at: u32, dtable_at: u32, t: u32, v: u32, h: u32, first_of_table: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.z * groups.y + group.y;
    let column = first_column(group, lane);
    if (first < p.t && column < p.h) {
        let row = load_tokens(first) - p.first_of_table;
        if (row < p.v && load_links(row) == first + 1u) {
            let left = p.h - column;
            var next = first + 1u;
            var sum = load4_dtable(row * p.h + column, left);
            for (var i = 0u; i < p.t && next != 0u; i++) {
                sum += load4_dy((next - 1u) * p.h + column, left);
                next = load_links(p.v + next - 1u);
            }
            store4_dtable(row * p.h + column, left, sum);
        }
    }
}
