//! Megatron-Turing NLG (arXiv 2201.11990) as explicit maths: a pre-LayerNorm GPT whose layers know the tensor-parallel group that they are cut
//! over and nothing else of the cluster.
//!
//! * [`config`]: the shape of a model ([`GptConfig`]), its parameter count and FLOPs; [`presets`]: the published ones by name.
//! * [`parameter`]: a parameter's logical name, global shape and the [`Slice`] of it that a rank holds; [`shard`]: which parameters those are.
//! * [`store`]: a rank's parameters and gradients in one flat buffer each, and their initial values.
//! * [`recompute`]: what the backward computes again.
//! * [`layers`]: forward and backward of each layer; [`stage`]: a pipeline stage's layers in a row.
//! * [`decoder`]: the same layers for inference, over a cache of keys and values.
//!
//! The forward of a layer keeps what its backward needs in an activation set that the caller owns; there are as many sets as microbatches in flight.
//! Nothing is allocated between [`Stage::new`](stage::Stage::new) and the end of the run.

mod accumulation;
pub mod config;
pub mod decoder;
pub mod layers;
pub mod parameter;
pub mod presets;
pub mod recompute;
pub mod shard;
pub mod stage;
pub mod store;
pub mod tensor_group;

pub use accumulation::Half;
pub use config::{ConfigError, GptConfig};
pub use decoder::{Decoder, DecoderOptions, Place, Score};
pub use parameter::{Parameter, Slice};
pub use recompute::Recompute;
pub use shard::Shard;
pub use stage::{Activations, Deferred, Microbatch, Stage, StageOptions};
pub use store::{ParameterStore, StoreOptions};
pub use tensor_group::TensorGroup;
