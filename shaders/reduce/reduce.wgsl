// Every output = the inputs combined element by element in a balanced binary tree over their order: the arithmetic of the collectives,
// in fp32; a narrower type is rounded once, at the end.
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

fn combine(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
#if MAX
    return max_or_nan4(a, b);
#else
    return a + b;
#endif
}

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            var total = load4_in0(at, left);
#if INPUT1
            total = combine(total, load4_in1(at, left));
#endif
#if INPUT2
            var second = load4_in2(at, left);
#if INPUT3
            second = combine(second, load4_in3(at, left));
#endif
            total = combine(total, second);
#endif
#if INPUT4
            var third = load4_in4(at, left);
#if INPUT5
            third = combine(third, load4_in5(at, left));
#endif
#if INPUT6
            var fourth = load4_in6(at, left);
#if INPUT7
            fourth = combine(fourth, load4_in7(at, left));
#endif
            third = combine(third, fourth);
#endif
            total = combine(total, third);
#endif
#for I 8
#if OUTPUT{I}
            store4_out{I}(at, left, total);
#endif
#end
        }
    }
}
