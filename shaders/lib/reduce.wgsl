// Reductions over the ROW_LANES lanes of a workgroup: a tree in workgroup memory, the same order every time. Every lane gets the result.
// The host chooses ROW_LANES: few where lanes are emulated, many for long rows. To be called in uniform control flow only. One workgroup a row: dispatch rows folded into x and y.

var<workgroup> tree: array<vec2<f32>, ROW_LANES>;

// Row of this workgroup.
fn row_of(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Two sums at once.
fn sum_lanes2(value: vec2<f32>, lane: u32) -> vec2<f32> {
    tree[lane] = value;
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) {
            tree[lane] += tree[lane + half];
        }
        workgroupBarrier();
    }
    let total = tree[0];
    // Nobody writes the slots again before everybody has read.
    workgroupBarrier();
    return total;
}

fn sum_lanes(value: f32, lane: u32) -> f32 {
    return sum_lanes2(vec2<f32>(value, 0.0), lane).x;
}

// The sum of four.
fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
