// The end of a product: element (or four) number `at` of c, in column `column`, gets its value.
#if GELU
#include "lib/gelu.wgsl"
#endif

fn finish(at: u32, column: u32, product: T) {
    var value = product;
#if BETA
    value += p.beta * load_c(at);
#endif
#if BIAS
    value += load_bias(column);
#endif
    store_c(at, value);
#if GELU
    // The activation is that of what is kept, rounded as it is.
#if WIDE
    store_y(at, gelu(rounded_c(value)));
#else
    store_y(at, gelu(rounded_c(vec4<f32>(value))).x);
#endif
#endif
}
