//! `manifest.json`: what a checkpoint holds, and the hashes that show it unaltered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Meta;

/// Changes with every change of the format that an older reader would misread.
pub const FORMAT_VERSION: u64 = 3;

/// Its name in the checkpoint's directory.
pub const FILE: &str = "manifest.json";

/// The whole file: the manifest and its own hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    /// BLAKE3 of the manifest as compact JSON, fields in the order of [`Manifest`].
    blake3: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u64,
    /// Steps done.
    pub step: u64,
    pub meta: Meta,
    pub shards: Vec<ShardRecord>,
    /// By logical name.
    pub tensors: BTreeMap<String, TensorRecord>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    pub file: String,
    pub bytes: u64,
    pub blake3: String,
}

/// One tensor and where its parts lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// The whole tensor's.
    pub shape: Vec<usize>,
    pub slices: Vec<SliceRecord>,
}

/// One part: a tensor of this shape in a shard, under the logical name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceRecord {
    /// Index into [`Manifest::shards`].
    pub shard: usize,
    pub start: Vec<usize>,
    pub shape: Vec<usize>,
}

/// Why a manifest is refused.
pub enum Refusal {
    /// Another version, in words.
    Version(String),
    /// What is wrong.
    Damaged(String),
}

impl Manifest {
    /// The file's text.
    pub fn seal(&self) -> String {
        let sealed = Sealed { manifest: self.clone(), blake3: self.hash() };
        let mut text = serde_json::to_string_pretty(&sealed).expect("a manifest has only JSON's types");
        text.push('\n');
        text
    }

    /// Reads what [`seal`](Self::seal) wrote.
    pub fn open(text: &[u8]) -> Result<Self, Refusal> {
        let damaged = |why: String| Refusal::Damaged(format!("{FILE}: {why}"));
        // The version first: another one may have other fields.
        let any: serde_json::Value = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        match any.pointer("/manifest/version") {
            Some(version) if version.as_u64() == Some(FORMAT_VERSION) => {}
            Some(version) => return Err(Refusal::Version(version.to_string())),
            None => return Err(damaged("it has no version".into())),
        }
        let sealed: Sealed = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        match sealed.manifest.hash() == sealed.blake3 {
            true => Ok(sealed.manifest),
            false => Err(damaged("its hash does not match: it was altered".into())),
        }
    }

    /// The hash that stands over it.
    pub fn hash(&self) -> String {
        let compact = serde_json::to_vec(self).expect("a manifest has only JSON's types");
        blake3::hash(&compact).to_hex().to_string()
    }
}
