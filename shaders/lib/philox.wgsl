// Philox4x32-10 (Salmon et al. 2011), the same numbers as the contract's: word i of a stream is word i % 4 of block i / 4, the counter of a block is
// (its index, the stream), the key is the seed. Indices have 64 bits: (low, high) pairs.

fn add64(a: vec2<u32>, b: u32) -> vec2<u32> {
    let low = a.x + b;
    return vec2<u32>(low, a.y + select(0u, 1u, low < b));
}

// High and low word of a product: (low, high).
fn mul32(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return vec2<u32>(a * b, a1 * b1 + (middle >> 16u) + (other >> 16u));
}

// The low 64 bits of a product.
fn mul64(a: vec2<u32>, b: u32) -> vec2<u32> {
    let low = mul32(a.x, b);
    return vec2<u32>(low.x, low.y + a.y * b);
}

fn philox_block(index: vec2<u32>, stream: vec2<u32>, seed: vec2<u32>) -> vec4<u32> {
    var c = vec4<u32>(index, stream);
    var k = seed;
    for (var round = 0; round < 10; round++) {
        let p0 = mul32(0xD2511F53u, c.x);
        let p1 = mul32(0xCD9E8D57u, c.z);
        c = vec4<u32>(p1.y ^ c.y ^ k.x, p1.x, p0.y ^ c.w ^ k.y, p0.x);
        k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

fn philox_index(i: vec2<u32>) -> vec2<u32> {
    return vec2<u32>((i.x >> 2u) | (i.y << 30u), i.y >> 2u);
}

fn philox_word(i: vec2<u32>, stream: vec2<u32>, seed: vec2<u32>) -> u32 {
    return philox_block(philox_index(i), stream, seed)[i.x & 3u];
}

// Words i .. i + 4.
fn philox_words(i: vec2<u32>, stream: vec2<u32>, seed: vec2<u32>) -> vec4<u32> {
    let index = philox_index(i);
    let a = philox_block(index, stream, seed);
    let shift = i.x & 3u;
    if (shift == 0u) {
        return a;
    }
    let b = philox_block(add64(index, 1u), stream, seed);
    if (shift == 1u) {
        return vec4<u32>(a.yzw, b.x);
    }
    if (shift == 2u) {
        return vec4<u32>(a.zw, b.xy);
    }
    return vec4<u32>(a.w, b.xyz);
}
