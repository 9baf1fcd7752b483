// dst = src, bit for bit: the words are moved as integers, whatever they mean.
// Operands: src [n] read · dst [n] write. Dispatch: as lib/flat.
#include "lib/flat.wgsl"
#if WIDE
#define WORD vec4<u32>
#define WIDTH 4u
#else
#define WORD u32
#define WIDTH 1u
#endif
#operand src read WORD
#operand dst write WORD
struct Params { src_at: u32, dst_at: u32, n: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let i = flat(group, groups, lane, item);
        if (i < p.n / WIDTH) {
            dst[p.dst_at + i] = src[p.src_at + i];
        }
    }
}
