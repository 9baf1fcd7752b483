//! What a step left, and reading it back.

use super::{Set, Step, Tally};
use crate::input::{Files, InputFile, Place, Source, SourceKind};
use crate::{Error, Result, aside};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) const MANIFEST: &str = "manifest.json";

/// `manifest.json` of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the step.
    pub step: String,
    /// Its options.
    pub options: Value,
    /// Whether every part is there.
    pub complete: bool,
    /// What it found out, for people.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Its sets, in order.
    pub sets: Vec<SetRecord>,
}

/// One set of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecord {
    /// Its name.
    pub name: String,
    /// Its folder, inside the step's.
    pub folder: String,
    /// All parts together.
    #[serde(default)]
    pub tally: Tally,
    /// Its parts.
    #[serde(default)]
    pub parts: Vec<PartRecord>,
}

/// One part: `part-N.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// Name of its file.
    pub file: String,
    /// Hash of all that it depends on.
    pub key: String,
    /// Hash of its file (BLAKE3).
    pub hash: String,
    /// Size of its file.
    pub bytes: u64,
    /// What was counted.
    pub tally: Tally,
}

/// Sets and where they came from.
pub type Sets = Vec<Set>;

impl Manifest {
    /// Claim `output` for a step.
    pub(super) fn begin(step: &dyn Step, sets: &[Set], output: &Path) -> Result<Self> {
        let in_use = |reason: &str| Error::OutputInUse { path: output.to_owned(), reason: reason.to_owned() };
        if output.exists() && !output.is_dir() {
            return Err(in_use("it is a file"));
        }
        let whole = output.canonicalize().unwrap_or_else(|_| output.to_owned());
        let inside = |file: &InputFile| match &file.place {
            Place::Disk(path) => path.canonicalize().is_ok_and(|path| path.starts_with(&whole)),
            Place::Memory(_) => false,
        };
        if output.exists() {
            if sets.iter().flat_map(|set| &set.files.0).any(inside) {
                return Err(in_use("it holds the input"));
            }
            let mut entries = std::fs::read_dir(output).map_err(Error::io("list", output))?;
            if entries.next().is_some() && !output.join(MANIFEST).exists() {
                return Err(in_use("it holds files that no step wrote"));
            }
        }
        std::fs::create_dir_all(output).map_err(Error::io("create", output))?;
        let record = |(i, set): (usize, &Set)| SetRecord {
            name: set.name.clone(),
            folder: format!("{i:02}-{}", file_name(&set.name)),
            tally: Tally::default(),
            parts: Vec::new(),
        };
        // What was learned for the parts that are still there.
        let before = read_manifest(output).ok().filter(|manifest| manifest.step == step.name());
        let manifest = Manifest {
            step: step.name().to_owned(),
            options: step.options(),
            complete: false,
            notes: before.map(|manifest| manifest.notes).unwrap_or_default(),
            sets: sets.iter().enumerate().map(record).collect(),
        };
        aside::write_json(&output.join(MANIFEST), &manifest)?;
        Ok(manifest)
    }

    /// All sets together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.sets.iter().fold(Tally::default(), |sum, set| sum.and(&set.tally))
    }

    /// The sets of a complete step in `output`, for the next.
    #[must_use]
    pub fn sets(&self, output: &Path) -> Vec<Set> {
        let set = |record: &SetRecord| {
            let file = |part: &PartRecord| {
                let path = output.join(&record.folder).join(&part.file);
                InputFile::known(&path, part.file.clone(), part.bytes, &part.hash)
            };
            Set { name: record.name.clone(), files: Files(record.parts.iter().map(file).collect()) }
        };
        self.sets.iter().map(set).collect()
    }
}

/// The name of a set as a name of a file: letters, digits, `-`, `_` and `.` as they are.
pub(crate) fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(keep).take(64).collect()
}

/// The manifest of a step's folder.
///
/// # Errors
/// [`Error::Io`]; [`Error::Manifest`] if it is none.
pub fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let json = std::fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&json).map_err(|error| Error::Manifest { path, reason: error.to_string() })
}

/// The sets that an argument names: those of a step's folder, or the one of a source `[weight=]PATH`.
///
/// # Errors
/// Those of [`Source::parse`]; [`Error::Manifest`] for a step that was interrupted; [`Error::UnknownKind`] for tokens.
pub fn sets_of(argument: &str) -> Result<Sets> {
    let folder = PathBuf::from(argument);
    if folder.join(MANIFEST).is_file() {
        let manifest = read_manifest(&folder)?;
        if !manifest.complete {
            let reason = format!("the step {} did not finish; run it again", manifest.step);
            return Err(Error::Manifest { path: folder.join(MANIFEST), reason });
        }
        return Ok(manifest.sets(&folder));
    }
    let source = Source::parse(argument)?;
    if let SourceKind::Tokens(path) = source.kind {
        let (found, expected) = ("tokens".to_owned(), "text: a file, a folder or the output of a step");
        return Err(Error::UnknownKind { path, found, expected });
    }
    Ok(vec![Set { files: source.files()?, name: source.name }])
}

/// Read every part of a step's folder and compare its bytes with its hash. Gives the parts that were read.
///
/// # Errors
/// [`Error::Manifest`] naming the first file that is missing or altered, or a step that did not finish.
pub fn verify(folder: &Path) -> Result<u64> {
    let manifest = read_manifest(folder)?;
    let fault = |path: PathBuf, reason: String| Error::Manifest { path, reason };
    if !manifest.complete {
        let reason = format!("the step {} did not finish; run it again", manifest.step);
        return Err(fault(folder.join(MANIFEST), reason));
    }
    let mut count = 0;
    for set in &manifest.sets {
        for part in &set.parts {
            let path = folder.join(&set.folder).join(&part.file);
            let open = std::fs::File::open(&path).map_err(Error::io("read", &path))?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(open).map_err(Error::io("read", &path))?;
            let hash = hasher.finalize().to_hex().to_string();
            if hash != part.hash {
                let reason = format!("its bytes have the hash {hash}, but were written with {}", part.hash);
                return Err(fault(path, reason + "; delete it and run the step again"));
            }
            count += 1;
        }
    }
    Ok(count)
}
