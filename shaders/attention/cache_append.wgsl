// cache[slot, head, 0 and 1, position, :] = the key and the value of row t, for places[t] = [slot, position, ..]; padding is left out.
// Operands: qkv [t, a, 3, d] read · places [t, 4] read · cache [n, a, 2, s, d] write; words are moved as integers. Dispatch: as lib/columns, over [t, 8 a ceil(d / 4)].
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand qkv read WORD
#operand places read u32
#operand cache write WORD
struct Params { qkv_at: u32, places_at: u32, cache_at: u32, rows: u32, n: u32, s: u32, a: u32, d: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let vectors = (p.d + 3u) / 4u;
    let vector = first_column(group, lane) / 4u;
    let head = vector / (2u * vectors);
    let which = vector / vectors % 2u;
    let i = 4u * (vector % vectors);
    let first = first_row(group, groups);
    if (head < p.a) {
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            let slot = load_places(4u * row);
            let position = load_places(4u * row + 1u);
            if (slot < p.n && position < p.s) {
                let source = ((row * p.a + head) * 3u + 1u + which) * p.d + i;
                let to = (((slot * p.a + head) * 2u + which) * p.s + position) * p.d + i;
                store4_cache(to, p.d - i, load4_qkv(source, p.d - i));
            }
        }
    }
}
