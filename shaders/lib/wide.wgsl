// The element that a lane works on: four numbers at a time where every row and offset is a multiple of four, else one.
#if WIDE
#define T vec4<f32>
#define WIDTH 4u
#else
#define T f32
#define WIDTH 1u
#endif
