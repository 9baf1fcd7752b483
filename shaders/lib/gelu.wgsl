// GELU, tanh form (Hendrycks & Gimpel 2016), by (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)), which keeps its relative precision for large negative x.
// The exponent is bounded, so that nothing becomes infinite.

// 1 / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).
fn gelu_gate(x: vec4<f32>) -> vec4<f32> {
    let twice = 1.5957691216057308 * (x + 0.044715 * x * x * x);
    return 1.0 / (1.0 + exp(clamp(-twice, vec4<f32>(-80.0), vec4<f32>(80.0))));
}

fn gelu(x: vec4<f32>) -> vec4<f32> {
    return x * gelu_gate(x);
}

fn gelu_derivative(x: vec4<f32>) -> vec4<f32> {
    let gate = gelu_gate(x);
    return gate + x * gate * (1.0 - gate) * (1.5957691216057308 * (1.0 + 0.134145 * x * x));
}
