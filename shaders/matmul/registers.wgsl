// Matrix product from registers alone: c = alpha op(a) op(b) + beta c, a lane makes 8 x 8 elements, a workgroup 64 x 64.
// Without workgroup memory each lane reads its own rows and columns, which caches serve well; it is the way for a
// processor that plays a GPU and has no subgroups of a known size.
// Rows and columns past the edge are read as the last ones and not stored, so that the loop has no condition. Sums run over k in order.
// K4: k is a multiple of four, and four steps are taken at a time.
// Dispatch: (n / 64, m / 64, batch), rounded up; `first_…` of them are left out.
#include "matmul/operands.wgsl"

// acc += a row vector of b for each of eight rows: rows a0, a1 by columns b0, b1.
fn step(acc: ptr<function, array<vec4<f32>, 16>>, a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>) {
#for R 4
    (*acc)[2 * {R}] = fma(vec4<f32>(a0[{R}]), b0, (*acc)[2 * {R}]);
    (*acc)[2 * {R} + 1] = fma(vec4<f32>(a0[{R}]), b1, (*acc)[2 * {R} + 1]);
    (*acc)[2 * {R} + 8] = fma(vec4<f32>(a1[{R}]), b0, (*acc)[2 * {R} + 8]);
    (*acc)[2 * {R} + 9] = fma(vec4<f32>(a1[{R}]), b1, (*acc)[2 * {R} + 9]);
#end
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let matrix = group.z + p.first_matrix;
    let row = (group.y + p.first_row) * 64u + lane / 8u * 8u;
    let column = (group.x + p.first_column) * 64u + lane % 8u * 8u;
    let k = p.k;
    let a_start = matrix * p.m * k;
    let b_start = matrix * k * p.n;
    var acc: array<vec4<f32>, 16>;
#if !TRANS_A
#for R 8
    let a{R}_at = a_start + min(row + {R}u, p.m - 1u) * k;
#end
#endif
#if TRANS_B
#for C 8
    let b{C}_at = b_start + min(column + {C}u, p.n - 1u) * k;
#end
#endif
#if K4
    for (var i = 0u; i < k; i += 4u) {
#if TRANS_A
#for S 4
        let low{S} = four_a(a_start + (i + {S}u) * p.m + row, a_start + (i + {S}u) * p.m + p.m - 1u);
        let high{S} = four_a(a_start + (i + {S}u) * p.m + row + 4u, a_start + (i + {S}u) * p.m + p.m - 1u);
#end
#else
#for R 8
        let a{R} = four_a(a{R}_at + i, a{R}_at + k - 1u);
#end
#for S 4
        let low{S} = vec4<f32>(a0[{S}], a1[{S}], a2[{S}], a3[{S}]);
        let high{S} = vec4<f32>(a4[{S}], a5[{S}], a6[{S}], a7[{S}]);
#end
#endif
#if TRANS_B
#for C 8
        let b{C} = four_b(b{C}_at + i, b{C}_at + k - 1u);
#end
#for S 4
        let left{S} = vec4<f32>(b0[{S}], b1[{S}], b2[{S}], b3[{S}]);
        let right{S} = vec4<f32>(b4[{S}], b5[{S}], b6[{S}], b7[{S}]);
#end
#else
#for S 4
        let left{S} = four_b(b_start + (i + {S}u) * p.n + column, b_start + (i + {S}u) * p.n + p.n - 1u);
        let right{S} = four_b(b_start + (i + {S}u) * p.n + column + 4u, b_start + (i + {S}u) * p.n + p.n - 1u);
#end
#endif
#for S 4
        step(&acc, low{S}, high{S}, left{S}, right{S});
#end
    }
#else
    for (var i = 0u; i < k; i++) {
#if TRANS_A
        let low = four_a(a_start + i * p.m + row, a_start + i * p.m + p.m - 1u);
        let high = four_a(a_start + i * p.m + row + 4u, a_start + i * p.m + p.m - 1u);
#else
        let low = vec4<f32>(load_a(a0_at + i), load_a(a1_at + i), load_a(a2_at + i), load_a(a3_at + i));
        let high = vec4<f32>(load_a(a4_at + i), load_a(a5_at + i), load_a(a6_at + i), load_a(a7_at + i));
#endif
#if TRANS_B
        let left = vec4<f32>(load_b(b0_at + i), load_b(b1_at + i), load_b(b2_at + i), load_b(b3_at + i));
        let right = vec4<f32>(load_b(b4_at + i), load_b(b5_at + i), load_b(b6_at + i), load_b(b7_at + i));
#else
        let left = four_b(b_start + i * p.n + column, b_start + i * p.n + p.n - 1u);
        let right = four_b(b_start + i * p.n + column + 4u, b_start + i * p.n + p.n - 1u);
#endif
        step(&acc, low, high, left, right);
    }
#endif
#for R 8
    store(matrix, row + {R}u, column, acc[2 * {R}]);
    store(matrix, row + {R}u, column + 4u, acc[2 * {R} + 1]);
#end
}
