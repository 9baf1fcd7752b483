//! Generation and scoring with a model that a checkpoint holds, on any backend and in any layout of tensor and pipeline parallel ranks.
//!
//! * [`loaded`]: a checkpoint, its tokenizer, and how it is to be run; [`ranks`]: the ranks that run it, of which one has the say.
//! * [`step`]: what that rank tells the others to do, through [`Model`].
//! * [`batcher`]: continuous batching of prompts; [`sampling`]: how the next token is drawn; [`text`], [`writing`]: from tokens to text; [`scoring`]: log-likelihoods of continuations.
//! * [`generate`], [`score`], [`serve`], [`evaluate`]: the commands.

pub mod batcher;
pub mod evaluate;
pub mod generate;
pub mod loaded;
pub mod ranks;
pub mod sampling;
pub mod score;
pub mod scoring;
pub mod serve;
pub mod step;
pub mod text;
pub mod writing;

pub use batcher::{Batcher, Event, Finish, Prompt};
pub use loaded::{Loaded, ModelArgs};
pub use ranks::run;
pub use sampling::Sampling;
pub use step::{Answer, Capacity, Model, Step, Want};
