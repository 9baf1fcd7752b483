// Layer normalisation, gradients of gain and offset, second stage: the blocks' sums, in order.
// Operands: partial [blocks, 2, h] read · dgamma [h] in place · dbeta [h] in place.
// Dispatch: (columns / lanes, 1, 1).
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand partial read T
#operand dgamma write T
#operand dbeta write T
struct Params { partial_at: u32, dgamma_at: u32, dbeta_at: u32, h: u32, blocks: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    if (column < p.h) {
        let left = p.h - column;
        var gain = vec4<f32>(0.0);
        var offset = vec4<f32>(0.0);
        for (var block = 0u; block < p.blocks; block++) {
            gain += load4_partial(block * 2u * p.h + column, left);
            offset += load4_partial((block * 2u + 1u) * p.h + column, left);
        }
        store4_dgamma(column, left, load4_dgamma(column, left) + gain);
        store4_dbeta(column, left, load4_dbeta(column, left) + offset);
    }
}
