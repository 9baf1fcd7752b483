//! The layers: each a struct of parameter handles with a `forward` and a `backward`, reading as the papers write them.
//!
//! Letters as in [`backend::ops`]: `t = b s` tokens of a microbatch, `h` hidden, `a` heads and `f` FFN columns *of a chunk*: of what tensor parallelism
//! cuts, a rank holds one or several neighbouring chunks, and computes each one as a rank of its own would. `t'` are the tokens whose residual stream the
//! rank has: all, or its part under sequence parallelism.
//!
//! A backward has two halves, so that a zero-bubble schedule can run them at different times: `backward_input`, which gives the input's gradient and those of
//! biases and LayerNorms, and `backward_weight`, which gives the matrices'.

mod attention;
mod block;
mod cache;
mod chunked;
mod context;
mod dims;
mod embedding;
mod head;
mod linear;
mod mlp;
mod norm;
mod partial;
mod scratch;

pub use attention::{AttentionActivations, AttentionCore, SelfAttention};
pub use block::{Block, BlockActivations, BlockGradients};
pub use cache::{Cached, KvCache};
pub use chunked::Chunked;
pub use context::{Context, DropoutSite};
pub use dims::Dims;
pub use embedding::{EmbeddingActivations, TokenEmbedding};
pub use head::{Head, HeadActivations, HeadGradients};
pub use linear::{ColumnParallel, RowParallel};
pub use mlp::{Mlp, MlpActivations};
pub use norm::{Norm, NormActivations};
pub use scratch::Scratch;

use backend::Backend;

use crate::ParameterStore;
use crate::store::Handle;

/// The parameter of that name, which the tensor group repeats.
fn the<B: Backend>(store: &ParameterStore<B>, name: &str) -> Handle {
    *store.find(name).first().expect("a shard holds the parameters of its own layers")
}
