// Matrix product by blocks in workgroup memory: c = alpha op(a) op(b) + beta c. 256 lanes as 16 x 16, a lane makes TILE x TILE elements 16 apart, a
// workgroup BLOCK x BLOCK with BLOCK = 16 TILE; DEPTH steps of k are staged at a time. What a GPU wants: each number is fetched once a block, and
// neighbouring lanes touch neighbouring addresses. Past the edges zeros are staged. Sums run over k in order.
// TILE: 4, or 8, which is worth it where there are blocks enough for the device.
// Dispatch: (n / BLOCK, m / BLOCK, batch), rounded up; `first_…` of them are left out.
#include "matmul/operands.wgsl"

const TILE_SIZE = TILE;
const BLOCK = 16u * TILE_SIZE;
const DEPTH = 64u / TILE_SIZE;
// One more than a block, so that writes along k fall on different banks.
const PITCH = BLOCK + 1u;

var<workgroup> staged_a: array<f32, DEPTH * PITCH>;
var<workgroup> staged_b: array<f32, DEPTH * PITCH>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let matrix = group.z + p.first_matrix;
    let row = (group.y + p.first_row) * BLOCK;
    let column = (group.x + p.first_column) * BLOCK;
    let a_start = matrix * p.m * p.k;
    let b_start = matrix * p.k * p.n;
    let lane_row = lane / 16u;
    let lane_column = lane % 16u;
    var acc: array<f32, TILE_SIZE * TILE_SIZE>;
    for (var first = 0u; first < p.k; first += DEPTH) {
        for (var i = lane; i < DEPTH * BLOCK; i += 256u) {
#if TRANS_A
            let ar = i % BLOCK;
            let ak = i / BLOCK;
            let a_at = a_start + (first + ak) * p.m + row + ar;
#else
            let ar = i / DEPTH;
            let ak = i % DEPTH;
            let a_at = a_start + (row + ar) * p.k + first + ak;
#endif
            var a_value = 0.0;
            if (row + ar < p.m && first + ak < p.k) {
                a_value = load_a(a_at);
            }
            staged_a[ak * PITCH + ar] = a_value;
#if TRANS_B
            let bc = i / DEPTH;
            let bk = i % DEPTH;
            let b_at = b_start + (column + bc) * p.k + first + bk;
#else
            let bc = i % BLOCK;
            let bk = i / BLOCK;
            let b_at = b_start + (first + bk) * p.n + column + bc;
#endif
            var b_value = 0.0;
            if (column + bc < p.n && first + bk < p.k) {
                b_value = load_b(b_at);
            }
            staged_b[bk * PITCH + bc] = b_value;
        }
        workgroupBarrier();
        for (var i = 0u; i < DEPTH; i++) {
            var left: array<f32, TILE_SIZE>;
            var right: array<f32, TILE_SIZE>;
            for (var j = 0u; j < TILE_SIZE; j++) {
                left[j] = staged_a[i * PITCH + lane_row + 16u * j];
                right[j] = staged_b[i * PITCH + lane_column + 16u * j];
            }
            for (var r = 0u; r < TILE_SIZE; r++) {
                for (var j = 0u; j < TILE_SIZE; j++) {
                    acc[r * TILE_SIZE + j] = fma(left[r], right[j], acc[r * TILE_SIZE + j]);
                }
            }
        }
        // The next steps are staged once everybody has read these.
        workgroupBarrier();
    }
    for (var r = 0u; r < TILE_SIZE; r++) {
        for (var j = 0u; j < TILE_SIZE; j++) {
            let to_row = row + lane_row + 16u * r;
            let to_column = column + lane_column + 16u * j;
            if (to_row < p.m && to_column < p.n) {
                finish((matrix * p.m + to_row) * p.n + to_column, to_column, p.alpha * acc[r * TILE_SIZE + j]);
            }
        }
    }
}
