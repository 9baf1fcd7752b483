// WGSL lets an implementation assume that there is no NaN; the bits of a loaded number tell.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// The larger one; NaN if one of them is.
fn max_or_nan(a: f32, b: f32) -> f32 {
    if (is_nan(a)) {
        return a;
    }
    if (is_nan(b)) {
        return b;
    }
    return max(a, b);
}

fn max_or_nan4(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(max_or_nan(a.x, b.x), max_or_nan(a.y, b.y), max_or_nan(a.z, b.z), max_or_nan(a.w, b.w));
}
