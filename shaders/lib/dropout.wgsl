// Dropout of elements first + i: kept where their word reaches the threshold, and scaled. The parameters are the kernel's:
// seed, stream, first (low and high words), threshold, keep_scale.
#include "lib/philox.wgsl"

// x with the mask of elements i .. i + 4.
fn drop_out(x: vec4<f32>, i: u32) -> vec4<f32> {
    let index = add64(vec2<u32>(p.first_low, p.first_high), i);
    let stream = vec2<u32>(p.stream_low, p.stream_high);
    let seed = vec2<u32>(p.seed_low, p.seed_high);
    let words = philox_words(index, stream, seed);
    return select(vec4<f32>(0.0), x * p.keep_scale, words >= vec4<u32>(p.threshold));
}
