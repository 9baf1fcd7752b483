// A matrix of rows: a lane keeps its four columns and walks down COLUMN_ROWS rows, so that what belongs to the columns is loaded once.
// Dispatch: columns in x, blocks of rows folded into y and z.
#define COLUMN_LANES 64u
#define COLUMN_ROWS 8u

// First column of this lane.
fn first_column(group: vec3<u32>, lane: u32) -> u32 {
    return 4u * (group.x * COLUMN_LANES + lane);
}

// First row of this workgroup.
fn first_row(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return (group.z * groups.y + group.y) * COLUMN_ROWS;
}
