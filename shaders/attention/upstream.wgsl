// Vector c of a token's upstream gradient, as part_qkv has it.
fn part_dout(b: u32, t: u32, head: u32, c: u32) -> vec4<f32> {
    if (4u * c >= p.d) {
        return vec4<f32>(0.0);
    }
    return load4_dout(out_row(b, min(t, p.s - 1u), head) + 4u * c, p.d - 4u * c);
}
