// loss[t] = log(sum_exp[t]) - target[t].
// Operands: sum_exp [n] read · target [n] read · loss [n] write. Dispatch: as lib/flat.
#include "lib/wide.wgsl"
#include "lib/flat.wgsl"
#operand sum_exp read T
#operand target_logit read T
#operand loss write T
struct Params { sum_exp_at: u32, target_logit_at: u32, loss_at: u32, n: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(FLAT_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var item = 0u; item < FLAT_ITEMS; item++) {
        let at = flat(group, groups, lane, item);
        if (at < p.n) {
            let left = p.n - at;
            store4_loss(at, left, log(load4_sum_exp(at, left)) - load4_target_logit(at, left));
        }
    }
}
