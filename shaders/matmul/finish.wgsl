// The end of a product: element (or four) number `at` of c, in column `column`, gets its value.
fn finish(at: u32, column: u32, product: T) {
    var value = product;
#if BETA
    value += p.beta * c[p.c_at + at];
#endif
#if BIAS
    value += bias[p.bias_at + column];
#endif
    c[p.c_at + at] = value;
#if GELU
    y[p.y_at + at] = gelu(value);
#endif
}
