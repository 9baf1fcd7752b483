//! The cache: entries that are whole or not there.

use super::SetInfo;
use crate::indexed::IndexedDataset;
use crate::tokenizer::{Tokenizer, TokenizerSpec};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const RECORD: &str = "prepared.json";

/// What `prepared.json` says of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecord {
    /// Its name.
    pub name: String,
    /// Prefix of the pair, inside the folder.
    pub file: String,
    /// Documents.
    pub documents: u64,
    /// Documents dropped as duplicates of earlier ones.
    pub duplicates: u64,
    /// Tokens, with the end of each document.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// A whole entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub folder: PathBuf,
    /// Whether a damaged one had to be made again.
    pub rebuilt: bool,
    sets: Vec<SetRecord>,
}

impl Entry {
    /// The entry in `folder` if it is whole: every pair opens and holds what its record says, and the tokenizer loads.
    pub fn open(folder: &Path) -> Option<Self> {
        let record = fs::read(folder.join(RECORD)).ok()?;
        let sets: Vec<SetRecord> = serde_json::from_slice(&record).ok()?;
        let tokenizer = folder.join(TOKENIZER);
        if tokenizer.exists() {
            Tokenizer::from_file(&tokenizer).ok()?;
        }
        let whole = sets.iter().all(|set| {
            IndexedDataset::open(&folder.join(&set.file))
                .is_ok_and(|pair| pair.tokens() == set.tokens && pair.documents() == set.documents)
        });
        whole.then(|| Entry { folder: folder.to_owned(), rebuilt: false, sets })
    }

    pub fn tokenizer(&self) -> TokenizerSpec {
        let path = self.folder.join(TOKENIZER);
        if path.exists() { TokenizerSpec::File(path) } else { TokenizerSpec::Gpt2 }
    }

    /// The sets, their weights still open.
    pub fn records(&self) -> Vec<SetInfo> {
        let info = |set: &SetRecord| SetInfo {
            name: set.name.clone(),
            prefix: self.folder.join(&set.file),
            weight: 0.0,
            documents: set.documents,
            duplicates: set.duplicates,
            tokens: set.tokens,
            bytes: Some(set.bytes),
        };
        self.sets.iter().map(info).collect()
    }
}

/// A folder to make an entry in, beside its final place; removed if it is not published.
pub(super) fn building(cache: &Path) -> Result<TempDir> {
    fs::create_dir_all(cache).map_err(Error::io("create", cache))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".preparing-");
    // The permissions of any new folder: caches are shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(cache).map_err(Error::io("create a folder in", cache))
}

/// Give the entry its name. Where another process was faster, use its entry.
pub(super) fn publish(building: TempDir, folder: &Path) -> Result<Entry> {
    if fs::rename(building.path(), folder).is_err() {
        if let Some(entry) = Entry::open(folder) {
            return Ok(entry);
        }
        // What stands there is damaged: out of the way, under a name of its own, then once more.
        let cache = folder.parent().unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new()
            .prefix(".damaged-")
            .tempdir_in(cache)
            .map_err(Error::io("create a folder in", cache))?;
        match fs::rename(folder, aside.path().join("entry")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("replace the damaged", folder)(error));
            }
            _ => {}
        }
        if let Err(error) = fs::rename(building.path(), folder) {
            // Again another process may have been faster.
            return Entry::open(folder).ok_or_else(|| Error::io("write", folder)(error));
        }
    }
    // It stands under its name now: nothing is left to remove.
    let _ = building.keep();
    Entry::open(folder).ok_or_else(|| Error::DamagedIndex {
        path: folder.to_owned(),
        field: "cache entry".to_owned(),
        found: "unreadable right after it was written".to_owned(),
        expected: "what was written".to_owned(),
    })
}
