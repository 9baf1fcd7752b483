// y = mask x / (1 - p), forward and backward alike; y may be x.
// Operands: x [n] read · y [n] write. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#include "lib/dropout.wgsl"
#operand x read T
#operand y write T
struct Params {
    x_at: u32, y_at: u32, n: u32,
    seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
    threshold: u32, keep_scale: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            store4_y(at, left, drop_out(load4_x(at, left), at));
        }
    }
}
