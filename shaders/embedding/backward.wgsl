// dtable[r, :] += sum of dy[t, :] over the places t of row r, in their order, along the lists of backward_links.
// Operands: dy [t, h] read · links [v + t] read · dtable [v, h] in place; all as integers, since lists and numbers may share a buffer.
// Dispatch: (columns / lanes, rows folded into y and z).
#include "lib/columns.wgsl"
#operand dy read u32
#operand links read u32
#operand dtable write u32
struct Params { dy_at: u32, links_at: u32, dtable_at: u32, t: u32, v: u32, h: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.z * groups.y + group.y;
    let column = group.x * COLUMN_LANES + lane;
    if (row < p.v && column < p.h) {
        var next = links[p.links_at + row];
        if (next != 0u) {
            var sum = bitcast<f32>(dtable[p.dtable_at + row * p.h + column]);
            for (var i = 0u; i < p.t && next != 0u; i++) {
                sum += bitcast<f32>(dy[p.dy_at + (next - 1u) * p.h + column]);
                next = links[p.links_at + p.v + next - 1u];
            }
            dtable[p.dtable_at + row * p.h + column] = bitcast<u32>(sum);
        }
    }
}
