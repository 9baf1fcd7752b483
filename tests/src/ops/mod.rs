//! The cases of every operation of the contract, one file an operation, and [`refusals`] of wrong calls.
//!
//! Every file has `cases()`, and cases that draw their operands by their id, compute the expected values and bounds with
//! [`Bounded`](crate::Bounded) references, and run on any backend.

pub mod adamw;
pub mod attention;
pub mod attention_cached;
pub mod bias;
pub mod bias_dropout_residual;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gelu;
pub mod layernorm;
pub mod matmul;
pub mod reduce;
pub mod refusals;
pub mod special;

use backend::DType;

use crate::Place;

/// The types of values. f16 is optional: a backend may answer that it lacks it.
pub const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// The cases of every type.
pub(crate) fn of_each_type<C>(cases: impl Fn(DType) -> Vec<C>) -> Vec<C> {
    FLOATS.into_iter().flat_map(cases).collect()
}

/// Extents around the tiles that kernels are cut in: 32, 64, 128, 256.
pub const EDGES: [usize; 11] = [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257];

/// The places in turn: the `i`-th case's.
pub(crate) fn place(i: usize) -> Place {
    Place::ALL[i % Place::ALL.len()]
}

/// Pairs of edges: each edge once as rows and once as columns, in different company.
pub(crate) fn edge_pairs() -> impl Iterator<Item = [usize; 2]> {
    (0..EDGES.len()).flat_map(|i| {
        [[EDGES[i], EDGES[(i * 3 + 4) % EDGES.len()]], [EDGES[i], EDGES[(i * 7 + 2) % EDGES.len()]]]
    })
}
