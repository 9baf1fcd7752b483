//! Megatron-Turing NLG (arXiv 2201.11990) as explicit maths: a pre-LayerNorm GPT whose layers know the tensor-parallel group that they are cut
//! over and nothing else of the cluster.
//!
//! * [`config`]: the shape of a model ([`GptConfig`]), its parameter count and FLOPs; [`presets`]: the published ones by name.
//! * [`parameter`]: a parameter's logical name, global shape and the [`Slice`] of it that a rank holds.

pub mod config;
pub mod parameter;
pub mod presets;

pub use config::{ConfigError, GptConfig};
pub use parameter::{Parameter, Slice};
