//! Checkpoints that know no layout: logical tensors, cut as the ranks that wrote them held them, read back under any other cut.
//!
//! ```text
//! RUN/checkpoints/step-1280/
//!     shard-00000.safetensors     what one rank wrote: its slices of parameters and of Adam's two moments
//!     shard-00001.safetensors
//!     manifest.json               what the run was, where every slice lies, the BLAKE3 of every shard and of itself
//! ```
//!
//! Invariants:
//! * **Atomic.** A checkpoint is written to a hidden sibling directory; its files are fsynced, the manifest last, and the directory is renamed. What is
//!   called `step-N` is whole, or was damaged afterwards.
//! * **Refused if damaged.** [`Reader::open`] checks every hash and that every tensor is covered, before anything is used.
//! * **Older ones stay** until a newer one is in its place; a save that fails leaves nothing behind.
//!
//! A parameter `p` has three tensors of its shape: `p`, [`adam_m`]`(p)` and [`adam_v`]`(p)`, all f32. A checkpoint of weights alone lacks all the moments: they
//! are 0.

#[cfg(test)]
mod full_disk;
mod geometry;
mod manifest;
mod reader;
mod states;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use model::{GptConfig, Slice};
use serde::{Deserialize, Serialize};

pub use manifest::FORMAT_VERSION;
pub use reader::{Reader, Refused};
pub use writer::Writer;

/// Name of the tensor with Adam's first moment of `parameter`.
pub fn adam_m(parameter: &str) -> String {
    format!("{parameter}.adam_m")
}

/// Name of the tensor with Adam's second moment of `parameter`.
pub fn adam_v(parameter: &str) -> String {
    format!("{parameter}.adam_v")
}

/// One slice of one tensor, to be written.
#[derive(Clone, Copy, Debug)]
pub struct ShardTensor<'a> {
    /// The tensor's logical name.
    pub name: &'a str,
    /// Which part of it.
    pub slice: &'a Slice,
    /// The part's values, row-major; as many as the slice has elements.
    pub values: &'a [f32],
}

/// What a checkpoint says of the run beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// The model.
    pub model: GptConfig,
    /// Global samples consumed: the position in the data, the same number in any layout.
    pub samples_consumed: u64,
    /// Updates of the weights: steps without those that f16 skipped.
    pub updates: u64,
    /// Tokens of those updates: the position in the learning rate's schedule.
    pub scheduled_tokens: u64,
    /// f16's loss scale: the scale, steps without an overflow, overflows left.
    pub loss_scale: Option<(f32, u32, u32)>,
    /// The run's seed.
    pub seed: u64,
    /// The tokenizer, by name and by the BLAKE3 of its file.
    pub tokenizer: TokenizerId,
    /// The data sets, each in words that tell it from others: name, weight, hash.
    pub data: Vec<String>,
    /// The layout that wrote it, in words; no reader needs it.
    pub layout: String,
}

/// Which tokenizer made the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerId {
    /// As the configuration names it.
    pub name: String,
    /// BLAKE3 of what defines it, in hexadecimal.
    pub blake3: String,
    /// Rows of the vocabulary that stand for tokens; those behind them are padding.
    pub tokens: usize,
}

/// Why a checkpoint could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No room.
    #[error(
        "the disk is full: {} needs {needed} bytes\n  remedy: free space or choose another run.dir; earlier checkpoints are intact, and nothing \
         of this one is left", path.display()
    )]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Its size.
        needed: u64,
    },
    /// Any other failure of the file system.
    #[error("cannot {doing} {}: {message}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Whether that is the user's to mend.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// Torn or altered.
    #[error("checkpoint {} is damaged: {why}\n  remedy: resume from another checkpoint, or remove this one", dir.display())]
    Damaged {
        /// The checkpoint.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a format that this program does not know.
    #[error("checkpoint {} has format version {found}; this program reads version {}", dir.display(), FORMAT_VERSION)]
    Version {
        /// The checkpoint.
        dir: PathBuf,
        /// Its version.
        found: String,
    },
    /// Not one good checkpoint.
    #[error(
        "there is no good checkpoint in {}{}\n  remedy: give the directory of a run that has saved one", dir.display(),
        refused.iter().map(|r| format!("\n  refused: {r}")).collect::<String>()
    )]
    NoneGood {
        /// Where they were looked for.
        dir: PathBuf,
        /// Those that are there, and why each was refused.
        refused: Vec<Refused>,
    },
    /// The checkpoint is of another model.
    #[error(
        "checkpoint {} is of another model: model.{field} is {checkpoint} there and {configured} here\n  remedy: resume with the run's own \
         config.toml", dir.display()
    )]
    OtherModel {
        /// The checkpoint.
        dir: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value in the checkpoint.
        checkpoint: String,
        /// Its value in the configuration.
        configured: String,
    },
    /// A tensor that is not in the checkpoint, or has another shape there.
    #[error("checkpoint {} has no tensor {name} of shape {shape:?}", dir.display())]
    NoTensor {
        /// The checkpoint.
        dir: PathBuf,
        /// The tensor asked for.
        name: String,
        /// Its global shape as asked for.
        shape: Vec<usize>,
    },
    /// What the caller writes does not make up whole tensors.
    #[error("the checkpoint's shards do not fit together: {why}")]
    Inconsistent {
        /// What does not.
        why: String,
    },
    /// Another rank's write failed before; its error tells why.
    #[error("the checkpoint was given up because another shard could not be written")]
    GivenUp,
}

impl CheckpointError {
    /// A failed operation on `path`, which would have taken `needed` bytes.
    fn io(doing: &'static str, path: &Path, needed: u64, source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.into(), needed }
            }
            kind => Self::Io { doing, path: path.into(), kind, message: source.to_string() },
        }
    }
}

impl From<CheckpointError> for crate::Error {
    fn from(error: CheckpointError) -> Self {
        match &error {
            CheckpointError::Io { doing, path, kind, message } => {
                Self::io(doing, path, &io::Error::new(*kind, message.clone()))
            }
            CheckpointError::Inconsistent { .. } | CheckpointError::GivenUp => Self::other(error.to_string()),
            _ => Self::user(error.to_string()),
        }
    }
}

/// The directory of a run's checkpoints.
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

/// The checkpoints of a run by step, oldest first, good or not. None where there is no such directory.
///
/// # Errors
/// The directory cannot be read.
pub fn list(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let dir = directory(run_dir);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(CheckpointError::io("read", &dir, 0, &error)),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| CheckpointError::io("read", &dir, 0, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(step) = name.and_then(|name| name.strip_prefix("step-")).and_then(|n| n.parse().ok()) {
            steps.push((step, path));
        }
    }
    steps.sort();
    Ok(steps)
}

/// Removes the checkpoints after `step`: a run that goes on from there has another future.
///
/// # Errors
/// A directory cannot be read or removed.
pub fn discard_after(run_dir: &Path, step: u64) -> Result<(), CheckpointError> {
    for (later, dir) in list(run_dir)? {
        if later > step {
            writer::remove(&dir)?;
        }
    }
    Ok(())
}
