// The type of an operand whose elements are taken four at a time: vectors where every row and offset is a multiple of four elements (WIDE), else single
// elements. A kernel that reads and writes them by load4 and store4 does the same arithmetic either way.
#if WIDE
#define T vec4<f32>
#define WORD vec4<u32>
#else
#define T f32
#define WORD u32
#endif

// The first `left` of four, and `other` for those that are missing. Vectors have none missing.
fn present(v: vec4<f32>, left: u32, other: f32) -> vec4<f32> {
#if WIDE
    return v;
#else
    return select(vec4<f32>(other), v, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
#endif
}
