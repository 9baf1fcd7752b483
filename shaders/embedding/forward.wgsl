// y[t, :] = table[tokens[t] - first_row, :], or 0 where another rank holds the row.
// Operands: tokens [t] read · table [v, h] read · y [t, h] write; words are moved as integers. Dispatch: as lib/columns.
#include "lib/wide.wgsl"
#include "lib/columns.wgsl"
#operand tokens read u32
#operand table read WORD
#operand y write WORD
struct Params { tokens_at: u32, table_at: u32, y_at: u32, rows: u32, h: u32, v: u32, first_of_table: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(COLUMN_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = first_column(group, lane);
    let first = first_row(group, groups);
    if (column < p.h) {
        let left = p.h - column;
        for (var row = first; row < min(first + COLUMN_ROWS, p.rows); row++) {
            let at = row * p.h + column;
            // A row before the first one wraps round and is past the last one.
            let entry = load_tokens(row) - p.first_of_table;
            if (entry < p.v) {
                store4_y(at, left, load4_table(entry * p.h + column, left));
            } else {
                store4_y(at, left, vec4<u32>(0u));
            }
        }
    }
}
