//! The layers: each a struct of parameter handles with a `forward` and a `backward`, reading as the papers write them.
//!
//! Letters as in [`backend::ops`]: `t = b s` tokens of a microbatch, `h` hidden, `a` heads and `f` FFN columns *of this rank*.

mod attention;
mod block;
mod context;
mod embedding;
mod head;
mod linear;
mod mlp;
mod norm;

pub use attention::{AttentionActivations, SelfAttention};
pub use block::{Block, BlockActivations};
pub use context::{Context, Dims, DropoutSite, Scratch};
pub use embedding::{EmbeddingActivations, TokenEmbedding};
pub use head::{Head, HeadActivations};
pub use linear::{ColumnParallel, RowParallel};
pub use mlp::{Mlp, MlpActivations};
pub use norm::{Norm, NormActivations};
