// Every output = the inputs combined element by element in a balanced binary tree over their order: the arithmetic of the collectives.
// INPUTi, OUTPUTi: there is such an operand. An output may be one of the inputs: a lane reads all of an element before it writes it.
// Operands: in0 .. in7 [n] read · out0 .. out7 [n] write, at most eight buffers in all. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#include "lib/nan.wgsl"
#for I 8
#if INPUT{I}
#operand in{I} read T
#endif
#end
#for I 8
#if OUTPUT{I}
#operand out{I} write T
#endif
#end
struct Params {
#for I 8
#if INPUT{I}
    in{I}_at: u32,
#endif
#end
#for I 8
#if OUTPUT{I}
    out{I}_at: u32,
#endif
#end
    n: u32,
}
@group(1) @binding(0) var<uniform> p: Params;

fn combine(a: T, b: T) -> T {
#if MAX
#if WIDE
    return vec4<f32>(max_or_nan(a.x, b.x), max_or_nan(a.y, b.y), max_or_nan(a.z, b.z), max_or_nan(a.w, b.w));
#else
    return max_or_nan(a, b);
#endif
#else
    return a + b;
#endif
}

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let i = flat(group, groups, lane, item);
        if (i < p.n / WIDTH) {
            var total = in0[p.in0_at + i];
#if INPUT1
            total = combine(total, in1[p.in1_at + i]);
#endif
#if INPUT2
            var second = in2[p.in2_at + i];
#if INPUT3
            second = combine(second, in3[p.in3_at + i]);
#endif
            total = combine(total, second);
#endif
#if INPUT4
            var third = in4[p.in4_at + i];
#if INPUT5
            third = combine(third, in5[p.in5_at + i]);
#endif
#if INPUT6
            var fourth = in6[p.in6_at + i];
#if INPUT7
            fourth = combine(fourth, in7[p.in7_at + i]);
#endif
            third = combine(third, fourth);
#endif
            total = combine(total, third);
#endif
#for I 8
#if OUTPUT{I}
            out{I}[p.out{I}_at + i] = total;
#endif
#end
        }
    }
}
