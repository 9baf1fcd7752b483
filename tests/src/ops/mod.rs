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

/// One `#[test]` an operation, each running that operation's cases on the backend that the expression makes: an `Option` of an `Arc` or a `Box`, `None`
/// to skip.
#[macro_export]
macro_rules! operation_tests {
    ($backend:expr) => {
        $crate::operation_tests!(@each $backend,
            adamw attention attention_backward attention_cached bias_add bias_backward bias_dropout_residual bias_gelu cast cross_entropy
            cross_entropy_max cross_entropy_backward dropout elementwise embedding embedding_backward gelu gelu_backward
            layernorm layernorm_backward matmul matmul_bias matmul_bias_gelu reduce refusals special sum block_squares);
    };
    (@each $backend:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                if let Some(backend) = $backend {
                    $crate::ops::checks::$name(&*backend).assert_passed();
                }
            }
        )*
    };
}

/// The cases of one operation on a backend.
pub mod checks {
    use super::*;
    use crate::Report;
    use backend::Backend;

    macro_rules! checks {
        ($($name:ident = $cases:expr;)*) => {
            $(
                #[doc = concat!("The cases of `", stringify!($name), "`.")]
                pub fn $name<B: Backend>(backend: &B) -> Report {
                    Report::of(backend, $cases)
                }
            )*
        };
    }

    checks! {
        adamw = adamw::cases();
        attention = attention::cases();
        attention_backward = attention::backward_cases();
        attention_cached = attention_cached::cases();
        bias_add = bias::cases();
        bias_backward = bias::backward_cases();
        bias_dropout_residual = bias_dropout_residual::cases();
        bias_gelu = gelu::bias_cases();
        block_squares = reduce::block_squares_cases();
        cast = elementwise::cast_cases();
        cross_entropy = cross_entropy::cases();
        cross_entropy_max = cross_entropy::max_cases();
        cross_entropy_backward = cross_entropy::backward_cases();
        dropout = dropout::cases();
        elementwise = elementwise::cases();
        embedding = embedding::cases();
        embedding_backward = embedding::backward_cases();
        gelu = gelu::cases();
        gelu_backward = gelu::backward_cases();
        layernorm = layernorm::cases();
        layernorm_backward = layernorm::backward_cases();
        matmul = matmul::cases();
        matmul_bias = matmul::bias_cases();
        matmul_bias_gelu = matmul::bias_gelu_cases();
        reduce = reduce::cases();
        refusals = refusals::cases();
        special = special::cases();
        sum = reduce::sum_cases();
    }
}
