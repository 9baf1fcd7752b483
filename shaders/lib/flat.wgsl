// One long row of elements, in fours: a workgroup takes FLAT_LANES x FLAT_ITEMS fours in a row, its lanes side by side.
// Dispatch: that many workgroups, folded into x and y.
#define FLAT_LANES 128u
#define FLAT_ITEMS 4u

// First element of four number `item` of this lane.
fn flat(group: vec3<u32>, groups: vec3<u32>, lane: u32, item: u32) -> u32 {
    return 4u * (((group.y * groups.x + group.x) * FLAT_ITEMS + item) * FLAT_LANES + lane);
}
