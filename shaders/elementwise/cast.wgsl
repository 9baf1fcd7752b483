// dst = src in another type, rounded by what stores it (lib/half.wgsl).
// Operands: src [n] read · dst [n] write. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#operand src read T
#operand dst write T
struct Params { src_at: u32, dst_at: u32, n: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            store4_dst(at, left, load4_src(at, left));
        }
    }
}
