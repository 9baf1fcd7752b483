// y[t, :] = table[tokens[t] - first_row, :], or 0 where another rank holds the row.
// Operands: tokens [t] read · table [v, h] read · y [t, h] write; words are moved as integers. Dispatch: as lib/columns.
#include "lib/columns.wgsl"
#if WIDE
#define WORD vec4<u32>
#define WIDTH 4u
#else
#define WORD u32
#define WIDTH 1u
#endif
#operand tokens read u32
#operand table read WORD
#operand y write WORD
struct Params { tokens_at: u32, table_at: u32, y_at: u32, rows: u32, h: u32, v: u32, first_of_table: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let h = p.h / WIDTH;
    let column = group.x * COLUMN_LANES + lane;
    let first = first_row(group, groups);
    if (column < h) {
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            // A row before the first one wraps round and is past the last one.
            let entry = tokens[p.tokens_at + row] - p.first_of_table;
            if (entry < p.v) {
                y[p.y_at + row * h + column] = table[p.table_at + entry * h + column];
            } else {
                y[p.y_at + row * h + column] = WORD(0u);
            }
        }
    }
}
