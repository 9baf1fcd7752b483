// Where each row of the table occurs among the tokens, as a list in their order: links[r] is 1 + the first t with tokens[t] = first + r, and
// links[v + t] is 1 + the next place of the same token; 0 ends a list. links[..v] is 0 before.
// A lane owns the rows r with r % owners = its number: it goes through the tokens from the last to the first, every lane the same one at a time, and puts those of
// its rows in front of their lists. So no two lanes write a word, and the work is a constant (owners) times t, whatever v is.
// Operands: tokens [t] read · links [v + t] in place. Dispatch: owners lanes in x.
#operand tokens read u32
#operand links write u32
struct Params { tokens_at: u32, links_at: u32, t: u32, v: u32, first_of_table: u32, owners: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(OWNER_LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var next = p.t; next > 0u; next--) {
        // A row before the first one wraps round and is past the last one.
        let row = load_tokens(next - 1u) - p.first_of_table;
        if (row < p.v && row % p.owners == id.x) {
            store_links(p.v + next - 1u, load_links(row));
            store_links(row, next);
        }
    }
}
