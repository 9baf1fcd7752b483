// 16-bit numbers by their bits, four at a time: WGSL has no bf16, and leaves the rounding of its f16 to the implementation. To nearest, ties to even; what
// leaves the range is infinite; NaN stays NaN.

// An f32 without its lower half. A carry out of the mantissa is the next exponent, as it should be.
fn bf16_bits(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let rounded = (bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
    let nan = (bits >> vec4<u32>(16u)) | vec4<u32>(0x40u);
    return select(rounded, nan, (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}

// Five bits of exponent and ten of mantissa. Below 2^-14 a number is a multiple of 2^-24, which is the last place of 0.5: adding 0.5 rounds.
fn f16_bits(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let sign = (bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u);
    let size = bits & vec4<u32>(0x7fffffffu);
    let normal = (size + 0xfffu + ((size >> vec4<u32>(13u)) & vec4<u32>(1u)) - 0x38000000u) >> vec4<u32>(13u);
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(size) + 0.5) - 0x3f000000u;
    var half = select(normal, small, size < vec4<u32>(0x38800000u));
    half = select(half, vec4<u32>(0x7c00u), size >= vec4<u32>(0x477ff000u));
    half = select(half, vec4<u32>(0x7e00u), size > vec4<u32>(0x7f800000u));
    return sign | half;
}

// The f32 of the same value. Below 2^-14 the ten bits count multiples of 2^-24.
fn f16_values(bits: vec4<u32>) -> vec4<f32> {
    let sign = (bits & vec4<u32>(0x8000u)) << vec4<u32>(16u);
    let size = bits & vec4<u32>(0x7fffu);
    let small = bitcast<vec4<u32>>(vec4<f32>(size) * 5.9604644775390625e-8);
    var value = select((size << vec4<u32>(13u)) + 0x38000000u, small, size < vec4<u32>(0x400u));
    value = select(value, (size << vec4<u32>(13u)) | vec4<u32>(0x7f800000u), size >= vec4<u32>(0x7c00u));
    return bitcast<vec4<f32>>(sign | value);
}
