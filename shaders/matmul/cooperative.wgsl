#if HALF
enable f16;
#endif
enable wgpu_cooperative_matrix;
// Matrix product on a GPU's matrix units: c = alpha op(a) op(b) + beta c. A workgroup is one subgroup of LANES lanes and makes 32 x 32 elements by matrices of SIDE x SIDE,
// each of which the subgroup holds together. 32 steps of k are staged in workgroup memory at a time, past the edges as zeros, and the sums leave through it as
// well, so that any type, edge and epilogue will do.
// The order in which a unit adds is its own, so that the bits differ from those of the other kernels.
// SIDE: 8, or 16, where the units take f16 and sum in f32: HALF, for operands that are f16 in memory.
// Dispatch: (n / 32, m / 32, batch), rounded up; `first_…` of them are left out.
#include "matmul/operands.wgsl"
#if HALF
#define NUMBER f16
#define MATRIX coop_mat16x16
#define SIDE 16
#define PARTS 2
#else
#define NUMBER f32
#define MATRIX coop_mat8x8
#define SIDE 8
#define PARTS 4
#endif

// Rows of a by k, k by columns of b.
var<workgroup> staged_a: array<NUMBER, 1024>;
var<workgroup> staged_b: array<NUMBER, 1024>;
var<workgroup> staged_c: array<f32, 1024>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let matrix = group.z + p.first_matrix;
    let row = (group.y + p.first_row) * 32u;
    let column = (group.x + p.first_column) * 32u;
    let a_start = matrix * p.m * p.k;
    let b_start = matrix * p.k * p.n;
    for (var i = lane; i < 1024u; i += u32(LANES)) {
        staged_c[i] = 0.0;
    }
    workgroupBarrier();
#for R PARTS
#for C PARTS
    var sum{R}_{C} = coopLoadT<MATRIX<f32, C>>(&staged_c[0], 32u);
#end
#end
    for (var first = 0u; first < p.k; first += 32u) {
        for (var i = lane; i < 1024u; i += u32(LANES)) {
#if TRANS_A
            let ar = i % 32u;
            let ak = i / 32u;
            let a_at = a_start + (first + ak) * p.m + row + ar;
#else
            let ar = i / 32u;
            let ak = i % 32u;
            let a_at = a_start + (row + ar) * p.k + first + ak;
#endif
            var a_value = 0.0;
            if (row + ar < p.m && first + ak < p.k) {
                a_value = load_a(a_at);
            }
            staged_a[ar * 32u + ak] = NUMBER(a_value);
#if TRANS_B
            let bc = i / 32u;
            let bk = i % 32u;
            let b_at = b_start + (column + bc) * p.k + first + bk;
#else
            let bc = i % 32u;
            let bk = i / 32u;
            let b_at = b_start + (first + bk) * p.n + column + bc;
#endif
            var b_value = 0.0;
            if (column + bc < p.n && first + bk < p.k) {
                b_value = load_b(b_at);
            }
            staged_b[bk * 32u + bc] = NUMBER(b_value);
        }
        workgroupBarrier();
        for (var i = 0u; i < 32u; i += u32(SIDE)) {
#for P PARTS
            let a{P} = coopLoadT<MATRIX<NUMBER, A>>(&staged_a[{P}u * SIDE * 32u + i], 32u);
            let b{P} = coopLoadT<MATRIX<NUMBER, B>>(&staged_b[i * 32u + {P}u * SIDE], 32u);
#end
#for R PARTS
#for C PARTS
            sum{R}_{C} = coopMultiplyAdd(a{R}, b{C}, sum{R}_{C});
#end
#end
        }
        // The next steps are staged once everybody has read these.
        workgroupBarrier();
    }
#for R PARTS
#for C PARTS
    coopStoreT(sum{R}_{C}, &staged_c[{R}u * SIDE * 32u + {C}u * SIDE], 32u);
#end
#end
    workgroupBarrier();
    for (var i = lane; i < 1024u; i += u32(LANES)) {
        let to_row = row + i / 32u;
        let to_column = column + i % 32u;
        if (to_row < p.m && to_column < p.n) {
            finish((matrix * p.m + to_row) * p.n + to_column, to_column, p.alpha * staged_c[i]);
        }
    }
}
