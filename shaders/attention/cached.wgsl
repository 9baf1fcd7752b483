// Attention of new tokens over the cache, softmax in one pass over the keys (Dao et al. 2022): a workgroup a row and head. 32 keys at a time, one a lane for the
// scores; then each lane has four components of the output in each slice, over all of those keys. The order does not depend on other rows.
// Operands: qkv [t, a, 3, d] read · places [t, 4] read · cache [n, a, 2, s, d] read · out [t, a, d] write. Dispatch: (rows, heads).
#include "lib/wide.wgsl"
#define CACHE_LANES 32u
#operand qkv read T
#operand places read u32
#operand cache read T
#operand out write T
struct Params { qkv_at: u32, places_at: u32, cache_at: u32, out_at: u32, n: u32, s: u32, a: u32, d: u32, scale: f32 }
@group(1) @binding(0) var<uniform> p: Params;

// Slot, position, shared slot, shared length.
var<workgroup> place: vec4<u32>;
var<workgroup> query: array<vec4<f32>, 64>;
var<workgroup> numbers: array<f32, CACHE_LANES>;

// First element of key (0) or value (1) k of a head of the row's sequence.
fn entry(at: vec4<u32>, head: u32, which: u32, k: u32) -> u32 {
    let slot = select(at.x, at.z, k < at.w);
    return (((slot * p.a + head) * 2u + which) * p.s + k) * p.d;
}

@compute @workgroup_size(CACHE_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    let head = group.y;
    if (lane == 0u) {
        var found = vec4<u32>(load_places(4u * row), load_places(4u * row + 1u), load_places(4u * row + 2u), load_places(4u * row + 3u));
        if (found.z >= p.n) {
            found.w = 0u;
        }
        place = found;
    }
    for (var c = lane; 4u * c < p.d; c += CACHE_LANES) {
        query[c] = p.scale * load4_qkv((row * p.a + head) * 3u * p.d + 4u * c, p.d - 4u * c);
    }
    workgroupBarrier();
    let at = workgroupUniformLoad(&place);
    let held = at.x < p.n && at.y < p.s;
    // One behind the last key.
    let end = select(0u, at.y + 1u, held);
    var highest = -1.0e30;
    var total = 0.0;
#for N SLICES
    var sum{N} = vec4<f32>(0.0);
#end
    for (var first = 0u; first < end; first += CACHE_LANES) {
        let key = first + lane;
        var score = -1.0e30;
        if (key < end) {
            let source = entry(at, head, 0u, key);
            var products = vec4<f32>(0.0);
            for (var c = 0u; 4u * c < p.d; c++) {
                products += query[c] * load4_cache(source + 4u * c, p.d - 4u * c);
            }
            score = (products.x + products.y) + (products.z + products.w);
        }
        numbers[lane] = score;
        workgroupBarrier();
        var higher = highest;
        for (var i = 0u; i < CACHE_LANES; i++) {
            higher = max(higher, numbers[i]);
        }
        workgroupBarrier();
        numbers[lane] = select(0.0, exp(score - higher), key < end);
        workgroupBarrier();
        let shrink = exp(highest - higher);
        highest = higher;
        total *= shrink;
#for N SLICES
        sum{N} *= shrink;
#end
        for (var i = 0u; i < min(CACHE_LANES, end - first); i++) {
            let weight = numbers[i];
            total += weight;
#for N SLICES
            let c{N} = 4u * (lane + CACHE_LANES * {N}u);
            if (c{N} < p.d) {
                sum{N} += weight * load4_cache(entry(at, head, 1u, first + i) + c{N}, p.d - c{N});
            }
#end
        }
        workgroupBarrier();
    }
#for N SLICES
    let column{N} = 4u * (lane + CACHE_LANES * {N}u);
    if (column{N} < p.d) {
        store4_out((row * p.a + head) * p.d + column{N}, p.d - column{N}, select(vec4<f32>(0.0), sum{N} / total, held));
    }
#end
}
