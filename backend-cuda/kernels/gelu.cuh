// The tanh form of GELU and its slope: x/2 (1 + tanh u) = x / (1 + e^{-2u}), u = sqrt(2/pi) (x + 0.044715 x^3); one exponential, and no cancellation.
#pragma once
#include "common.cuh"

const float GELU_1 = -1.5957691216f;  // -2 sqrt(2/pi)
const float GELU_3 = -0.0713548162726f; // that times 0.044715

DEVICE float gelu_of(float x) { return x / (1.f + expf(x * (GELU_1 + GELU_3 * (x * x)))); }

// With s = 1 / (1 + e^{-2u}): s + x s (1 - s) 2u'.
DEVICE float gelu_slope(float x) {
    // Beyond 10 the slope is 0 or 1 to the last bit, and the exponential would leave the range; NaN stays.
    x = x > 10.f ? 10.f : x < -10.f ? -10.f : x;
    const float square = x * x, e = expf(x * (GELU_1 + GELU_3 * square)), s = 1.f / (1.f + e);
    return s - x * (GELU_1 + 3.f * GELU_3 * square) * (e * s * s);
}
