// Every output = the inputs combined element by element, in their order: the arithmetic of the collectives.
// INPUTS inputs; OUTPUTS outputs, each of which may be one of the inputs: a lane reads all of an element before it writes it.
// Operands: in0 .. in7 [n] read · out0 .. out7 [n] write, at most eight buffers in all. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#include "lib/nan.wgsl"
#if INPUT0
#operand in0 read T
#endif
#if INPUT1
#operand in1 read T
#endif
#if INPUT2
#operand in2 read T
#endif
#if INPUT3
#operand in3 read T
#endif
#if INPUT4
#operand in4 read T
#endif
#if INPUT5
#operand in5 read T
#endif
#if INPUT6
#operand in6 read T
#endif
#if INPUT7
#operand in7 read T
#endif
#if OUTPUT0
#operand out0 write T
#endif
#if OUTPUT1
#operand out1 write T
#endif
#if OUTPUT2
#operand out2 write T
#endif
#if OUTPUT3
#operand out3 write T
#endif
#if OUTPUT4
#operand out4 write T
#endif
#if OUTPUT5
#operand out5 write T
#endif
#if OUTPUT6
#operand out6 write T
#endif
#if OUTPUT7
#operand out7 write T
#endif
struct Params {
#if INPUT0
    in0_at: u32,
#endif
#if INPUT1
    in1_at: u32,
#endif
#if INPUT2
    in2_at: u32,
#endif
#if INPUT3
    in3_at: u32,
#endif
#if INPUT4
    in4_at: u32,
#endif
#if INPUT5
    in5_at: u32,
#endif
#if INPUT6
    in6_at: u32,
#endif
#if INPUT7
    in7_at: u32,
#endif
#if OUTPUT0
    out0_at: u32,
#endif
#if OUTPUT1
    out1_at: u32,
#endif
#if OUTPUT2
    out2_at: u32,
#endif
#if OUTPUT3
    out3_at: u32,
#endif
#if OUTPUT4
    out4_at: u32,
#endif
#if OUTPUT5
    out5_at: u32,
#endif
#if OUTPUT6
    out6_at: u32,
#endif
#if OUTPUT7
    out7_at: u32,
#endif
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
            total = combine(total, in2[p.in2_at + i]);
#endif
#if INPUT3
            total = combine(total, in3[p.in3_at + i]);
#endif
#if INPUT4
            total = combine(total, in4[p.in4_at + i]);
#endif
#if INPUT5
            total = combine(total, in5[p.in5_at + i]);
#endif
#if INPUT6
            total = combine(total, in6[p.in6_at + i]);
#endif
#if INPUT7
            total = combine(total, in7[p.in7_at + i]);
#endif
#if OUTPUT0
            out0[p.out0_at + i] = total;
#endif
#if OUTPUT1
            out1[p.out1_at + i] = total;
#endif
#if OUTPUT2
            out2[p.out2_at + i] = total;
#endif
#if OUTPUT3
            out3[p.out3_at + i] = total;
#endif
#if OUTPUT4
            out4[p.out4_at + i] = total;
#endif
#if OUTPUT5
            out5[p.out5_at + i] = total;
#endif
#if OUTPUT6
            out6[p.out6_at + i] = total;
#endif
#if OUTPUT7
            out7[p.out7_at + i] = total;
#endif
        }
    }
}
