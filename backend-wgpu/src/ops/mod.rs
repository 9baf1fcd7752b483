//! The operations: from an operation's arguments to its kernels, one file a shader folder. Each checks its arguments first, returns at once where there is
//! nothing to do, and cuts what is longer than a binding into pieces.

mod adamw;
pub(crate) mod attention;
pub(crate) mod attention_cached;
pub(crate) mod bias;
mod cross_entropy;
mod dropout;
mod elementwise;
pub(crate) mod embedding;
mod gelu;
mod host;
pub(crate) mod layernorm;
pub(crate) mod matmul;
mod reduce;
pub(crate) mod sum;

/// Low and high word.
fn halves(n: u64) -> [u32; 2] {
    [n as u32, (n >> 32) as u32]
}
