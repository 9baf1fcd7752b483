// Where each row of the table occurs among the tokens, as a list in their order: links[r] is 1 + the first t with tokens[t] = first + r, and
// links[v + t] is 1 + the next place of the same token; 0 ends a list. A lane a row reads all tokens, every lane the same one at a time: v t reads of one word,
// less than the v t h products of the logits by the factor h.
// Operands: tokens [t] read · links [v + t] write. Dispatch: lanes over v in x.
#operand tokens read u32
#operand links write u32
struct Params { tokens_at: u32, links_at: u32, t: u32, v: u32, first_of_table: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row < p.v) {
        var last = row;
        for (var t = 0u; t < p.t; t++) {
            if (load_tokens(t) - p.first_of_table == row) {
                store_links(last, t + 1u);
                last = p.v + t;
            }
        }
        store_links(last, 0u);
    }
}
