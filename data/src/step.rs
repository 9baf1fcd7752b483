//! A step of the pipeline: records in, records out, the same bits on any number of threads, and where it was interrupted it goes on.
//!
//! ```text
//!   OUTPUT/manifest.json                 the step, its options, its sets, their parts; `complete` once all are there
//!         /00-books/part-00000.jsonl.zst what was kept                              one part for every 64 MiB of input files or larger file
//!                  /part-00000.json      its key and hash; documents and bytes in and out, reasons, samples
//!                  /part-00000.bad.jsonl quarantine: records that could not be read, with file, offset and reason
//! ```
//!
//! A part's key is the hash of the step, its options and the bytes of its input (of all input, where the step learns from it). Run again, a part
//! that is there with its key is not made again. Parts and manifests are written beside their place and renamed, the part's own manifest last.
//!
//! A step is a value that implements [`Step`]: it may first [`learn`](Step::learn) from all sets (`dedup`: which documents are copies), then is
//! [`apply`](Step::apply)-ed to each record, on all threads.

mod manifest;
mod part;
mod report;

pub(crate) use manifest::file_name;
pub use manifest::{Manifest, PartRecord, SetRecord, Sets, read_manifest, sets_of, verify};
pub use report::{Count, Sample, Tally};

use crate::input::{Files, InputFile};
use crate::record::Record;
use crate::{Error, Result, aside};
use serde_json::Value;
use std::path::Path;

/// Raise it whenever the same step would give other bytes.
const FORMAT: &str = "data step 1";
/// Input files are put together into a part until they have so many bytes; a larger file is a part of its own.
const PART_BYTES: u64 = 64 << 20;

/// A named set of documents.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Files,
}

impl Set {
    /// Its files in the parts that steps work on.
    #[must_use]
    pub fn parts(&self) -> Vec<Files> {
        let mut parts: Vec<Files> = Vec::new();
        let mut bytes = 0;
        for file in &self.files.0 {
            match parts.last_mut() {
                Some(last) if bytes + file.bytes <= PART_BYTES => last.0.push(file.clone()),
                _ => {
                    bytes = 0;
                    parts.push(Files(vec![file.clone()]));
                }
            }
            bytes += file.bytes;
        }
        parts
    }
}

/// Which record: its set, its part, its ordinal there ([`Files::stream`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the set.
    pub set: usize,
    /// Index of the part.
    pub part: usize,
    /// Number of the record in the part.
    pub ordinal: u64,
}

/// What a step does.
pub trait Step: Sync {
    /// Its name: `dedup`, `clean`, ….
    fn name(&self) -> &'static str;

    /// Everything besides the input that decides the output.
    fn options(&self) -> Value;

    /// Whether it learns something before it treats the first record.
    fn learns(&self) -> bool {
        false
    }

    /// Whether what it learns depends on the sets, so that a change of one changes the parts of all.
    fn learns_from_sets(&self) -> bool {
        self.learns()
    }

    /// Whether it takes pages of which nothing has been extracted yet; with any other step they are quarantined.
    fn takes_pages(&self) -> bool {
        false
    }

    /// Learn, from the sets or from elsewhere. `scratch` is a folder for what does not fit into memory.
    ///
    /// # Errors
    /// As reading them.
    fn learn(&mut self, sets: &[Set], scratch: &Path, progress: &mut Watch<'_>) -> Result<()> {
        let _ = (sets, scratch, progress);
        Ok(())
    }

    /// What becomes of a record.
    fn apply(&self, place: Place, record: Record) -> Outcome;

    /// What it found out while it learned, for people: lines of the report.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What became of a record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// What goes on: itself, pieces of it, or nothing.
    pub kept: Vec<Record>,
    /// What was done to it and why.
    pub marks: Vec<Mark>,
}

/// Something that was done to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whether text was dropped, or changed.
    pub dropped: bool,
    /// Why, in a few words: what the report counts by.
    pub reason: String,
    /// Bytes of text that it is about.
    pub bytes: u64,
    /// How that text looks.
    pub sample: String,
}

impl Outcome {
    /// It stays as it is.
    #[must_use]
    pub fn keep(record: Record) -> Self {
        Outcome { kept: vec![record], marks: Vec::new() }
    }

    /// It is dropped.
    #[must_use]
    pub fn drop(record: &Record, reason: impl Into<String>) -> Self {
        Outcome { kept: Vec::new(), marks: vec![Mark::new(true, reason, &record.text)] }
    }

    /// Say also that something was changed.
    #[must_use]
    pub fn mark(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }
}

/// Characters of a sample.
const SAMPLE: usize = 300;

impl Mark {
    /// About `text`.
    #[must_use]
    pub fn new(dropped: bool, reason: impl Into<String>, text: &str) -> Self {
        let sample = text.chars().take(SAMPLE).collect();
        Mark { dropped, reason: reason.into(), bytes: text.len() as u64, sample }
    }
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The step, and what it does of it.
    pub doing: String,
    /// Bytes of input done.
    pub done: u64,
    /// Bytes of input in all.
    pub total: u64,
}

/// Told of progress, from the calling thread.
pub type Watch<'a> = dyn FnMut(Progress) + 'a;

/// Runs `step` over `sets` into the folder `output`, or what is not there yet of it.
///
/// `bad_limit`: how many records may be unreadable before the run stops; `None`: any number.
///
/// # Errors
/// [`Error::OutputInUse`] for a folder that holds something else; [`Error::TooManyBad`]; [`Error::NoSources`]; those of reading and writing.
pub fn run(
    step: &mut dyn Step,
    sets: &[Set],
    output: &Path,
    bad_limit: Option<u64>,
    progress: &mut Watch<'_>,
) -> Result<Manifest> {
    if sets.is_empty() {
        return Err(Error::NoSources);
    }
    let mut manifest = Manifest::begin(step, sets, output)?;
    let total: u64 = sets.iter().map(|set| set.files.bytes()).sum();
    let keys = keys(step, sets)?;
    let mut bad = 0;
    let found: Vec<Vec<Option<PartRecord>>> = keys
        .iter()
        .zip(&manifest.sets)
        .map(|(keys, set)| {
            let folder = output.join(&set.folder);
            keys.iter().enumerate().map(|(i, key)| part::find(&folder, i, key)).collect()
        })
        .collect();
    if step.learns() && found.iter().flatten().any(Option::is_none) {
        step.learn(sets, output, progress)?;
        manifest.notes = step.notes();
    }
    let mut done = 0;
    for (s, (set, found)) in sets.iter().zip(found).enumerate() {
        let folder = output.join(&manifest.sets[s].folder);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let mut records = Vec::new();
        for (p, (files, found)) in set.parts().into_iter().zip(found).enumerate() {
            let bytes = files.bytes();
            let record = match found {
                Some(record) => {
                    bad += record.tally.bad;
                    record
                }
                None => {
                    let job =
                        part::Job { step, folder: &folder, set: s, part: p, key: &keys[s][p], files: &files };
                    let doing = format!("{} {}", step.name(), set.name);
                    job.run(&mut bad, bad_limit, &mut |read| {
                        let done = (done + read).min(total);
                        progress(Progress { doing: doing.clone(), done, total });
                    })?
                }
            };
            done += bytes;
            records.push(record);
        }
        part::tidy(&folder, records.len())?;
        manifest.sets[s].tally = records.iter().fold(Tally::default(), |sum, part| sum.and(&part.tally));
        manifest.sets[s].parts = records;
    }
    manifest.complete = true;
    aside::write_json(&output.join(manifest::MANIFEST), &manifest)?;
    Ok(manifest)
}

/// The key of every part of every set.
fn keys(step: &dyn Step, sets: &[Set]) -> Result<Vec<Vec<String>>> {
    use rayon::prelude::*;
    let mut hashes = Vec::new();
    for set in sets {
        let mut parts = Vec::new();
        for files in set.parts() {
            let each: Vec<Result<(blake3::Hash, &InputFile)>> =
                files.0.par_iter().map(|file| Ok((file.hash()?, file))).collect();
            let mut hasher = blake3::Hasher::new();
            for file in each {
                let (hash, file) = file?;
                field(&mut hasher, file.name.as_bytes());
                field(&mut hasher, format!("{:?} {:?}", file.format, file.compression).as_bytes());
                field(&mut hasher, hash.as_bytes());
            }
            parts.push(hasher.finalize());
        }
        hashes.push(parts);
    }
    let mut base = blake3::Hasher::new();
    field(&mut base, FORMAT.as_bytes());
    field(&mut base, step.name().as_bytes());
    field(&mut base, step.options().to_string().as_bytes());
    if step.learns_from_sets() {
        for (set, hashes) in sets.iter().zip(&hashes) {
            field(&mut base, set.name.as_bytes());
            hashes.iter().for_each(|hash| field(&mut base, hash.as_bytes()));
        }
    }
    let key = |(p, hash): (usize, &blake3::Hash)| {
        let mut hasher = base.clone();
        field(&mut hasher, &(p as u64).to_le_bytes());
        field(&mut hasher, hash.as_bytes());
        hasher.finalize().to_hex().to_string()
    };
    Ok(hashes.iter().map(|parts| parts.iter().enumerate().map(key).collect()).collect())
}

/// Its length first, so that no two lists of fields hash alike.
pub(crate) fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
