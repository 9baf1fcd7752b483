// A matrix of rows: a lane keeps its column and walks down COLUMN_ROWS rows, so that what belongs to the column is loaded once.
// Dispatch: columns in x, blocks of rows folded into y and z.
#define COLUMN_LANES 64u
#define COLUMN_ROWS 8u

// First row of this workgroup.
fn first_row(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return (group.z * groups.y + group.y) * COLUMN_ROWS;
}
