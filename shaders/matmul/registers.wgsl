// Matrix product from registers alone: c = alpha op(a) op(b) + beta c, a lane makes 8 x 8 elements, a workgroup 64 x 64.
// Without workgroup memory each lane reads its own rows and columns, which caches serve well; it is the way for a
// processor that plays a GPU and has no subgroups of eight.
// Rows and columns past the edge are read as the last ones and not stored, so that the loop has no condition. Sums run over k in order.
// WIDE: whatever lies contiguously comes in fours, four steps of k at a time where that is k. TRANS_A: a is [k, m]. TRANS_B: b is [n, k].
// BETA: c is read. BIAS: a row is added to every row. GELU: c keeps what the activation, into y, was applied to.
// Operands: a [batch, m, k] read · b [batch, k, n] read · c [batch, m, n] write · bias [n] read (BIAS) · y [m, n] write (GELU).
// Dispatch: (n / 64, m / 64, batch), rounded up.
#include "lib/wide.wgsl"
#if WIDE
#define WIDTH 4u
#else
#define WIDTH 1u
#endif
#operand a read T
#operand b read T
#operand c write T
#if BIAS
#operand bias read T
#endif
#if GELU
#operand y write T
#endif
struct Params {
    a_at: u32, b_at: u32, c_at: u32,
#if BIAS
    bias_at: u32,
#endif
#if GELU
    y_at: u32,
#endif
    m: u32, n: u32, k: u32, alpha: f32, beta: f32,
}
@group(1) @binding(0) var<uniform> p: Params;

// acc += a row vector of b for each of eight rows: rows a0, a1 by columns b0, b1.
fn step(acc: ptr<function, array<vec4<f32>, 16>>, a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>) {
#for R 4
    (*acc)[2 * {R}] = fma(vec4<f32>(a0[{R}]), b0, (*acc)[2 * {R}]);
    (*acc)[2 * {R} + 1] = fma(vec4<f32>(a0[{R}]), b1, (*acc)[2 * {R} + 1]);
    (*acc)[2 * {R} + 8] = fma(vec4<f32>(a1[{R}]), b0, (*acc)[2 * {R} + 8]);
    (*acc)[2 * {R} + 9] = fma(vec4<f32>(a1[{R}]), b1, (*acc)[2 * {R} + 9]);
#end
}

// Elements row, column .. column + 4.
fn store(batch: u32, row: u32, column: u32, sum: vec4<f32>) {
    if (row >= p.m) {
        return;
    }
    let at = batch * (p.m * p.n / WIDTH) + (row * p.n + column) / WIDTH;
#if WIDE
    if (column < p.n) {
        finish(at, column / 4u, p.alpha * sum);
    }
#else
    if (column < p.n) {
        finish(at, column, p.alpha * sum.x);
    }
    if (column + 1u < p.n) {
        finish(at + 1u, column + 1u, p.alpha * sum.y);
    }
    if (column + 2u < p.n) {
        finish(at + 2u, column + 2u, p.alpha * sum.z);
    }
    if (column + 3u < p.n) {
        finish(at + 3u, column + 3u, p.alpha * sum.w);
    }
#endif
}

#include "matmul/finish.wgsl"

// Eight numbers around `at`: the contiguous ones of a row of op(a)^T or op(b), of which there are `count`.
fn eight(first: u32, count: u32) -> array<u32, 8> {
    let last = count - 1u;
    return array<u32, 8>(
        min(first, last), min(first + 1u, last), min(first + 2u, last), min(first + 3u, last),
        min(first + 4u, last), min(first + 5u, last), min(first + 6u, last), min(first + 7u, last),
    );
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * 64u + lane / 8u * 8u;
    let column = group.x * 64u + lane % 8u * 8u;
    let k = p.k;
    let a_start = group.z * (p.m * k / WIDTH);
    let b_start = group.z * (k * p.n / WIDTH);
    var acc: array<vec4<f32>, 16>;
#if WIDE
#if TRANS_A
    let a0_at = a_start + min(row / 4u, p.m / 4u - 1u);
    let a1_at = a_start + min(row / 4u + 1u, p.m / 4u - 1u);
    let a_step = p.m / 4u;
#else
    let rows = eight(row, p.m);
#endif
#if TRANS_B
    let columns = eight(column, p.n);
#else
    let b0_at = b_start + min(column / 4u, p.n / 4u - 1u);
    let b1_at = b_start + min(column / 4u + 1u, p.n / 4u - 1u);
    let b_step = p.n / 4u;
#endif
#if STEP_ONE
    for (var i = 0u; i < k; i++) {
        step(&acc, load_a(a0_at + i * a_step), load_a(a1_at + i * a_step), load_b(b0_at + i * b_step), load_b(b1_at + i * b_step));
    }
#else
    let k4 = k / 4u;
    for (var i = 0u; i < k4; i++) {
#if TRANS_A
        let ta0 = mat4x4<f32>(load_a(a0_at + 4u * i * a_step), load_a(a0_at + (4u * i + 1u) * a_step), load_a(a0_at + (4u * i + 2u) * a_step), load_a(a0_at + (4u * i + 3u) * a_step));
        let ta1 = mat4x4<f32>(load_a(a1_at + 4u * i * a_step), load_a(a1_at + (4u * i + 1u) * a_step), load_a(a1_at + (4u * i + 2u) * a_step), load_a(a1_at + (4u * i + 3u) * a_step));
#else
        let at = a_start + i;
        let ta0 = transpose(mat4x4<f32>(load_a(at + rows[0] * k4), load_a(at + rows[1] * k4), load_a(at + rows[2] * k4), load_a(at + rows[3] * k4)));
        let ta1 = transpose(mat4x4<f32>(load_a(at + rows[4] * k4), load_a(at + rows[5] * k4), load_a(at + rows[6] * k4), load_a(at + rows[7] * k4)));
#endif
#if TRANS_B
        let bt = b_start + i;
        let tb0 = transpose(mat4x4<f32>(load_b(bt + columns[0] * k4), load_b(bt + columns[1] * k4), load_b(bt + columns[2] * k4), load_b(bt + columns[3] * k4)));
        let tb1 = transpose(mat4x4<f32>(load_b(bt + columns[4] * k4), load_b(bt + columns[5] * k4), load_b(bt + columns[6] * k4), load_b(bt + columns[7] * k4)));
#else
        let tb0 = mat4x4<f32>(load_b(b0_at + 4u * i * b_step), load_b(b0_at + (4u * i + 1u) * b_step), load_b(b0_at + (4u * i + 2u) * b_step), load_b(b0_at + (4u * i + 3u) * b_step));
        let tb1 = mat4x4<f32>(load_b(b1_at + 4u * i * b_step), load_b(b1_at + (4u * i + 1u) * b_step), load_b(b1_at + (4u * i + 2u) * b_step), load_b(b1_at + (4u * i + 3u) * b_step));
#endif
        step(&acc, ta0[0], ta1[0], tb0[0], tb1[0]);
        step(&acc, ta0[1], ta1[1], tb0[1], tb1[1]);
        step(&acc, ta0[2], ta1[2], tb0[2], tb1[2]);
        step(&acc, ta0[3], ta1[3], tb0[3], tb1[3]);
    }
#endif
#else
    let rows = eight(row, p.m);
    let columns = eight(column, p.n);
#if TRANS_A
    let a_row = 1u;
    let a_step = p.m;
#else
    let a_row = k;
    let a_step = 1u;
#endif
#if TRANS_B
    let b_column = k;
    let b_step = 1u;
#else
    let b_column = 1u;
    let b_step = p.n;
#endif
    for (var i = 0u; i < k; i++) {
        let at = a_start + i * a_step;
        let bt = b_start + i * b_step;
        step(
            &acc,
            vec4<f32>(load_a(at + rows[0] * a_row), load_a(at + rows[1] * a_row), load_a(at + rows[2] * a_row), load_a(at + rows[3] * a_row)),
            vec4<f32>(load_a(at + rows[4] * a_row), load_a(at + rows[5] * a_row), load_a(at + rows[6] * a_row), load_a(at + rows[7] * a_row)),
            vec4<f32>(load_b(bt + columns[0] * b_column), load_b(bt + columns[1] * b_column), load_b(bt + columns[2] * b_column), load_b(bt + columns[3] * b_column)),
            vec4<f32>(load_b(bt + columns[4] * b_column), load_b(bt + columns[5] * b_column), load_b(bt + columns[6] * b_column), load_b(bt + columns[7] * b_column)),
        );
    }
#endif
#for R 8
    store(group.z, row + {R}u, column, acc[2 * {R}]);
    store(group.z, row + {R}u, column + 4u, acc[2 * {R} + 1]);
#end
}
