//! Where the files of a Megatron-LM checkpoint are (`megatron/training/checkpointing.py`, `get_checkpoint_name`).
//!
//! ```text
//! CHECKPOINTS/
//!     latest_checkpointed_iteration.txt              123, or release
//!     iter_0000123/                                  or release/
//!         mp_rank_00/model_optim_rng.pt              a tensor rank
//!         mp_rank_00_001/model_optim_rng.pt          or a tensor rank of a pipeline stage
//! ```

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Which iteration is the newest.
const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// What a rank writes.
const FILE: &str = "model_optim_rng.pt";

/// The folder of one iteration.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its path.
    pub dir: PathBuf,
    /// Whether ranks' folders have the pipeline stage in their names.
    staged: bool,
}

impl Folder {
    /// The newest iteration of a folder of checkpoints, or the iteration that has this folder; none if it is neither.
    ///
    /// # Errors
    /// The iteration that is said to be the newest is not there, or has no first rank.
    pub fn find(source: &Path) -> Result<Option<Self>> {
        let tracker = source.join(TRACKER);
        let dir = if tracker.is_file() {
            Self::newest(source, &tracker)?
        } else if names(source).iter().any(|name| name.starts_with("mp_rank_")) {
            source.to_owned()
        } else {
            return Ok(None);
        };
        let mut folder = Self { dir, staged: false };
        if !folder.file(0, 0).is_file() {
            folder.staged = true;
        }
        match folder.file(0, 0).is_file() {
            true => Ok(Some(folder)),
            false => {
                folder.staged = false;
                Err(Error::user("the checkpoint has no first rank")
                    .at(folder.file(0, 0).display().to_string())
                    .remedy(
                        "give a checkpoint of Megatron-LM's torch format with all of its mp_rank folders",
                    ))
            }
        }
    }

    fn newest(source: &Path, tracker: &Path) -> Result<PathBuf> {
        let text = std::fs::read(tracker).map_err(|e| Error::io("read", tracker, &e))?;
        let text = String::from_utf8_lossy(&text).trim().chars().take(60).collect::<String>();
        let name = match (text.as_str(), text.parse::<u64>()) {
            ("release", _) => text,
            (_, Ok(iteration)) => format!("iter_{iteration:07}"),
            _ => {
                return Err(Error::user("it holds neither an iteration nor the word release")
                    .at(tracker.display().to_string())
                    .value(text)
                    .remedy("give the folder of one iteration instead"));
            }
        };
        let dir = source.join(&name);
        match dir.is_dir() {
            true => Ok(dir),
            false => Err(Error::user(format!("{TRACKER} names {name}, which is not there"))
                .at(dir.display().to_string())
                .remedy("give the folder of an iteration that is")),
        }
    }

    /// A rank's file.
    pub fn file(&self, tensor: usize, stage: usize) -> PathBuf {
        let name = match self.staged {
            true => format!("mp_rank_{tensor:02}_{stage:03}"),
            false => format!("mp_rank_{tensor:02}"),
        };
        self.dir.join(name).join(FILE)
    }

    /// Holds the ranks' folders against the layout that the checkpoint was written in.
    ///
    /// # Errors
    /// One is missing; there is one more.
    pub fn check(&self, tensor: usize, stages: usize) -> Result<()> {
        if stages > 1 && !self.staged {
            return Err(Error::user(format!(
                "the checkpoint was written by {stages} pipeline stages, and its folders name none"
            ))
            .at(self.dir.display().to_string())
            .remedy("give the folder as Megatron-LM wrote it"));
        }
        let mut all = Vec::new();
        for (rank, stage) in (0..tensor).flat_map(|rank| (0..stages).map(move |stage| (rank, stage))) {
            let file = self.file(rank, stage);
            if !file.is_file() {
                return Err(Error::user(format!(
                    "a file of the {tensor} x {stages} (tensor x pipeline) ranks is missing"
                ))
                .at(file.display().to_string())
                .remedy("copy the whole checkpoint"));
            }
            all.extend(
                file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()),
            );
        }
        let more =
            names(&self.dir).into_iter().find(|name| name.starts_with("mp_rank_") && !all.contains(name));
        match more {
            None => Ok(()),
            Some(name) => Err(Error::user(format!(
                "{name} is none of the {tensor} x {stages} (tensor x pipeline) ranks that wrote the checkpoint"
            ))
            .at(self.dir.display().to_string())
            .remedy("remove what is of another checkpoint")),
        }
    }
}

/// Names in a folder, sorted; none if it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}
