//! The operations, one file each: the arguments' check, the kernel's struct, the grid.
//!
//! Each struct here has the fields of the kernel's of that name, in its order: `repr(C)` lays both out alike.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod attention_cached;
pub(crate) mod bias;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod gelu;
pub(crate) mod layernorm;
pub(crate) mod matmul;
pub(crate) mod reduce;
pub(crate) mod sum;
