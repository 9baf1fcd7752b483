// Attention on a GPU: a workgroup of 64 lanes, 8 by 8, has 32 rows (queries, or keys whose gradients it makes) and takes 32 columns at a time (keys, or queries).
// A lane has rows 4 ty .. 4 ty + 4 and columns 4 tx .. 4 tx + 4 of the tile. What is multiplied is staged in slices of eight vectors of a head, so that
// 13 KiB of workgroup memory do for heads of any size; what a lane sums for its rows, vector tx of every slice, is in its registers.
// SLICES is ceil(d / 32); what a head lacks in its last slice is 0.
#define TILE 32u
#define TILE_LANES 64u

// Rows and columns of the tile, a slice of each, and what the products of the tile give: [32][8] vectors.
var<workgroup> rows: array<vec4<f32>, 256>;
var<workgroup> columns: array<vec4<f32>, 256>;
var<workgroup> weights: array<vec4<f32>, 256>;
// What each of a row's eight lanes has to say of it: [32][8].
var<workgroup> shares: array<f32, 256>;

// Where vector c of a row is: turned about, so that lanes with different rows or different vectors meet different banks.
fn slot(row: u32, c: u32) -> u32 {
    return row * 8u + (c ^ ((row >> 2u) & 7u));
}

// sum + rows columns^T over the slice: lane (tx, ty)'s four rows by four columns, a row's in one vector.
fn products(tx: u32, ty: u32, sum: mat4x4<f32>) -> mat4x4<f32> {
    var all = sum;
    for (var c = 0u; c < 8u; c++) {
        let c0 = columns[slot(4u * tx, c)];
        let c1 = columns[slot(4u * tx + 1u, c)];
        let c2 = columns[slot(4u * tx + 2u, c)];
        let c3 = columns[slot(4u * tx + 3u, c)];
#for I 4
        let row{I} = rows[slot(4u * ty + {I}u, c)];
        all[{I}] += vec4<f32>(dot(row{I}, c0), dot(row{I}, c1), dot(row{I}, c2), dot(row{I}, c3));
#end
    }
    return all;
}

// sum + weights columns: lane (tx, ty)'s four rows of vector tx of the slice, over the tile's columns in order.
fn weighted(tx: u32, ty: u32, sum: mat4x4<f32>) -> mat4x4<f32> {
    var all = sum;
    for (var k = 0u; k < 8u; k++) {
        let c0 = columns[slot(4u * k, tx)];
        let c1 = columns[slot(4u * k + 1u, tx)];
        let c2 = columns[slot(4u * k + 2u, tx)];
        let c3 = columns[slot(4u * k + 3u, tx)];
#for I 4
        let weight{I} = weights[slot(4u * ty + {I}u, k)];
        all[{I}] += (weight{I}.x * c0 + weight{I}.y * c1) + (weight{I}.z * c2 + weight{I}.w * c3);
#end
    }
    return all;
}

// The sums of `share` over the eight lanes of each of a lane's four rows. In uniform control flow only.
fn across(tx: u32, ty: u32, share: vec4<f32>) -> vec4<f32> {
#for I 4
    shares[(4u * ty + {I}u) * 8u + tx] = share[{I}];
#end
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var n = 0u; n < 8u; n++) {
        sum += vec4<f32>(shares[32u * ty + n], shares[32u * ty + 8u + n], shares[32u * ty + 16u + n], shares[32u * ty + 24u + n]);
    }
    // Nobody writes the slots again before everybody has read.
    workgroupBarrier();
    return sum;
}

// The largest of `share`, likewise.
fn highest_across(tx: u32, ty: u32, share: vec4<f32>) -> vec4<f32> {
#for I 4
    shares[(4u * ty + {I}u) * 8u + tx] = share[{I}];
#end
    workgroupBarrier();
    var highest = vec4<f32>(MASKED);
    for (var n = 0u; n < 8u; n++) {
        highest = max(highest, vec4<f32>(shares[32u * ty + n], shares[32u * ty + 8u + n], shares[32u * ty + 16u + n], shares[32u * ty + 24u + n]));
    }
    workgroupBarrier();
    return highest;
}

// Vector c of a token's query (which = 0), key (1) or value (2); tokens past the last are read as it, vectors past the head's are 0.
fn part_qkv(b: u32, t: u32, head: u32, which: u32, c: u32) -> vec4<f32> {
    if (4u * c >= p.d) {
        return vec4<f32>(0.0);
    }
    return load4_qkv(qkv_row(b, min(t, p.s - 1u), head, which) + 4u * c, p.d - 4u * c);
}
