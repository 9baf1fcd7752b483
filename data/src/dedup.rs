//! `dedup`: of documents that are the same, or nearly, only the first stays, in the order of the sets and in each of its documents.
//!
//! Exact: the same bytes (half a BLAKE3 hash). Near: the Jaccard similarity of the sets of five-word shingles is at least 0.8. Candidates are found by MinHash and
//! locality-sensitive hashing (Broder 1997; Leskovec et al. 2014, ch. 3): 260 hashes in 20 bands of 13, so that a pair of similarity `s` meets in a band with
//! probability `1 - (1 - s^13)^20`: 0.68 at 0.8, 0.95 at 0.86, 0.997 at 0.9, 0.02 at 0.6. Every candidate pair is verified on the shingles themselves, and
//! the documents that verified pairs connect are one group: the first of it stays.
//!
//! Memory: about 70 bytes a document (exact hashes 36 with their table, places 12, groups 5, and 12 of the one band that is sorted at a time), whatever
//! the documents' sizes; 7 GB for 100 million. On disk, in `scratch`, 160 bytes a document for the bands and 4 bytes a shingle, about two thirds of the
//! text. In a band where more than [`ALL_PAIRS`] documents meet, each is compared with one document of every group there instead of with all.

mod groups;
mod minhash;
mod spool;

pub use minhash::{MinHasher, jaccard, shingles};

use crate::record::Record;
use crate::step::{Outcome, Place, Progress, Set, Step, Watch};
use crate::{Error, Result};
use groups::Groups;
use serde_json::{Value, json};
use spool::Spool;
use std::collections::HashSet;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

/// Most documents of a band's bucket of which all pairs are compared.
pub const ALL_PAIRS: usize = 64;

/// What counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// Whether near duplicates are looked for, beside exact ones.
    pub fuzzy: bool,
    /// Words of a shingle.
    pub ngram: usize,
    /// Bands.
    pub bands: usize,
    /// Hashes of a band.
    pub rows: usize,
    /// Least Jaccard similarity of near duplicates.
    pub jaccard: f64,
}

impl Default for DedupConfig {
    fn default() -> Self {
        DedupConfig { fuzzy: true, ngram: 5, bands: 20, rows: 13, jaccard: 0.8 }
    }
}

impl DedupConfig {
    fn check(&self) -> Result<()> {
        let out = |name, value: String, expected: &str| {
            Err(Error::OutOfRange { name, value, expected: expected.to_owned() })
        };
        if !(0.0..=1.0).contains(&self.jaccard) || self.jaccard == 0.0 {
            return out("jaccard", self.jaccard.to_string(), "over 0 and at most 1");
        }
        for (name, value, most) in
            [("ngram", self.ngram, 64), ("bands", self.bands, 512), ("rows", self.rows, 128)]
        {
            if !(1..=most).contains(&value) {
                return out(name, value.to_string(), &format!("1 to {most}"));
            }
        }
        Ok(())
    }
}

/// Why a document goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Exact,
    Near,
}

/// What comparing needs of a record: its ordinal, half the hash of its text, its shingles and the hashes of its bands.
type Found = (u64, [u8; 16], Vec<u32>, Vec<u64>);

/// The step.
#[derive(Debug)]
pub struct Dedup {
    config: DedupConfig,
    scratch: Option<PathBuf>,
    /// Number of the first record of each part of each set.
    bases: Vec<Vec<u64>>,
    verdicts: Vec<Verdict>,
    notes: Vec<String>,
}

impl Dedup {
    /// `scratch`: a folder on a disk with room for two thirds of the text; `None`: the step's output.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn new(config: DedupConfig, scratch: Option<PathBuf>) -> Result<Self> {
        config.check()?;
        Ok(Dedup { config, scratch, bases: Vec::new(), verdicts: Vec::new(), notes: Vec::new() })
    }

    fn near(&mut self, spool: Spool, progress: &mut Watch<'_>) -> Result<()> {
        let documents = u32::try_from(self.verdicts.len()).map_err(|_| Error::OutOfRange {
            name: "documents of a dedup",
            value: self.verdicts.len().to_string(),
            expected: "under 2^32; deduplicate in partitions".to_owned(),
        })?;
        let mut groups = Groups::new(documents);
        let bands = self.config.bands;
        let sealed = spool.seal()?;
        for band in 0..bands {
            let doing = "dedup: comparing".to_owned();
            progress(Progress { doing, done: band as u64, total: bands as u64 });
            groups.join_band(&sealed, band, self.config.jaccard)?;
        }
        for document in 0..documents {
            if self.verdicts[document as usize] == Verdict::Keep && groups.first(document) != document {
                self.verdicts[document as usize] = Verdict::Near;
            }
        }
        self.notes.push(format!(
            "{} candidate pairs compared, {} similar ones joined groups",
            groups.compared, groups.joined
        ));
        Ok(())
    }
}

impl Step for Dedup {
    fn name(&self) -> &'static str {
        "dedup"
    }

    fn options(&self) -> Value {
        let DedupConfig { fuzzy, ngram, bands, rows, jaccard } = self.config;
        match fuzzy {
            true => json!({"fuzzy": true, "ngram": ngram, "bands": bands, "rows": rows, "jaccard": jaccard}),
            false => json!({"fuzzy": false}),
        }
    }

    fn learns(&self) -> bool {
        true
    }

    fn learn(&mut self, sets: &[Set], scratch: &Path, progress: &mut Watch<'_>) -> Result<()> {
        let total: u64 = sets.iter().map(|set| set.files.bytes()).sum();
        let fuzzy = self.config.fuzzy;
        let hasher = MinHasher::new(self.config.bands, self.config.rows);
        let mut spool = match fuzzy {
            true => Some(Spool::create(self.scratch.as_deref().unwrap_or(scratch), self.config.bands)?),
            false => None,
        };
        // Half of a hash is plenty: among 2^40 documents two differ and collide with probability 2^-49.
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        let (mut done, mut exact) = (0, 0u64);
        (self.bases, self.verdicts) = (Vec::new(), Vec::new());
        for set in sets {
            let mut bases = Vec::new();
            for files in set.parts() {
                let base = self.verdicts.len();
                bases.push(base as u64);
                files.stream(
                    |ordinal, record| {
                        let record = record.ok()?;
                        let hash = blake3::hash(record.text.as_bytes());
                        let half = *hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
                        let shingles =
                            if fuzzy { shingles(&record.text, self.config.ngram) } else { Vec::new() };
                        let bands = hasher.bands(&shingles);
                        Some((ordinal, half, shingles, bands))
                    },
                    &mut |found: Option<Found>, read| {
                        done += read;
                        progress(Progress {
                            doing: "dedup: reading".to_owned(),
                            done: done.min(total),
                            total,
                        });
                        let Some((ordinal, half, shingles, bands)) = found else { return Ok(Continue(())) };
                        let number = base + ordinal as usize;
                        self.verdicts.resize(number + 1, Verdict::Keep);
                        if !seen.insert(half) {
                            self.verdicts[number] = Verdict::Exact;
                            exact += 1;
                        } else if let Some(spool) = &mut spool {
                            spool.push(number as u64, &shingles, &bands)?;
                        }
                        Ok(Continue(()))
                    },
                )?;
            }
            self.bases.push(bases);
        }
        drop(seen);
        self.notes = vec![format!("{exact} exact duplicates")];
        match spool {
            Some(spool) => self.near(spool, progress),
            None => Ok(()),
        }
    }

    fn apply(&self, place: Place, record: Record) -> Outcome {
        let number = self.bases[place.set][place.part] + place.ordinal;
        match self.verdicts[number as usize] {
            Verdict::Keep => Outcome::keep(record),
            Verdict::Exact => Outcome::drop(&record, "exact duplicate"),
            Verdict::Near => Outcome::drop(&record, "near duplicate"),
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
