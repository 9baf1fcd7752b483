// The type of an operand whose elements are taken four at a time: vectors where every row and offset is a multiple of four elements (WIDE), else single
// elements. A kernel that reads and writes them by load4 and store4 does the same arithmetic either way.
#if WIDE
#define T vec4<f32>
#define WORD vec4<u32>
#else
#define T f32
#define WORD u32
#endif
