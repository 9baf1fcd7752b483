// x = value, given by its bits.
// Operands: x [n] write. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#operand x write T
struct Params { x_at: u32, n: u32, bits: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            store4_x(at, left, vec4<f32>(bitcast<f32>(p.bits)));
        }
    }
}
