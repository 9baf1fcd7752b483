//! One part: its records treated, written and counted.

use super::{Outcome, PartRecord, Place, Step, Tally};
use crate::input::Files;
use crate::record::Bad;
use crate::{Error, Result, aside};
use std::io::Write;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// zstd's own default: text becomes a third, at over 100 MB/s.
const LEVEL: i32 = 3;

/// The part to make.
pub(super) struct Job<'a> {
    pub step: &'a dyn Step,
    pub folder: &'a Path,
    pub set: usize,
    pub part: usize,
    pub key: &'a str,
    pub files: &'a Files,
}

pub(super) fn shard_name(part: usize) -> String {
    format!("part-{part:05}.jsonl.zst")
}

fn record_path(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("part-{part:05}.json"))
}

fn quarantine_path(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("part-{part:05}.bad.jsonl"))
}

/// The part if it is there with this key.
pub(super) fn find(folder: &Path, part: usize, key: &str) -> Option<PartRecord> {
    let json = std::fs::read(record_path(folder, part)).ok()?;
    let record: PartRecord = serde_json::from_slice(&json).ok()?;
    let bytes = std::fs::metadata(folder.join(shard_name(part))).ok()?.len();
    (record.key == key && record.bytes == bytes).then_some(record)
}

/// Removes parts of an earlier run that had more.
pub(super) fn tidy(folder: &Path, parts: usize) -> Result<()> {
    for part in parts.. {
        let path = record_path(folder, part);
        if !path.exists() {
            return Ok(());
        }
        for path in [path, folder.join(shard_name(part)), quarantine_path(folder, part)] {
            if path.exists() {
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// Counts and hashes what goes through it.
struct Hashed {
    file: NamedTempFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What came of a record: its name, the bytes of its text, the outcome and its lines.
type Done = (String, u64, Outcome, Vec<u8>);

impl Job<'_> {
    /// `bad` counts unreadable records over all parts; `read` is told the bytes of input that are done.
    pub fn run(&self, bad: &mut u64, limit: Option<u64>, read: &mut dyn FnMut(u64)) -> Result<PartRecord> {
        let path = self.folder.join(shard_name(self.part));
        let record_path = record_path(self.folder, self.part);
        // From here on there is no part of this number until the new one is whole.
        if record_path.exists() {
            std::fs::remove_file(&record_path).map_err(Error::io("remove", &record_path))?;
        }
        let failed = |error| Error::io("write", &path)(error);
        let hashed = Hashed { file: aside::temporary(&path)?, hasher: blake3::Hasher::new(), bytes: 0 };
        let mut out = zstd::stream::write::Encoder::new(hashed, LEVEL).map_err(failed)?;
        out.include_checksum(true).map_err(failed)?;
        let mut tally = Tally::default();
        let mut quarantine = Vec::new();
        let mut done = 0;
        self.files.stream(
            |ordinal, record| -> std::result::Result<Done, Bad> {
                let record = record?;
                let (id, bytes) = (record.id.clone(), record.text.len() as u64);
                if record.html && !self.step.takes_pages() {
                    let reason = format!("{id} is a page; take its text with `extract` first");
                    return Err(Bad::new(&id, 0, reason, record.text.as_bytes()));
                }
                let place = Place { set: self.set, part: self.part, ordinal };
                let outcome = match record.text.trim().is_empty() {
                    true => Outcome::drop(&record, "empty"),
                    false => self.step.apply(place, record),
                };
                let lines = outcome.kept.iter().flat_map(|record| record.to_json()).collect();
                Ok((id, bytes, outcome, lines))
            },
            &mut |result: std::result::Result<Done, Bad>, bytes| {
                match result {
                    Ok((id, bytes, outcome, lines)) => {
                        tally.add(&id, bytes, &outcome);
                        out.write_all(&lines).map_err(|error| Error::io("write", &path)(error))?;
                    }
                    Err(reason) => {
                        tally.bad += 1;
                        *bad += 1;
                        let line = serde_json::to_string(&reason).expect("strings and a number are JSON");
                        quarantine.push(line);
                        if limit.is_some_and(|limit| *bad > limit) {
                            return Err(Error::too_many_bad(limit.unwrap_or_default(), reason));
                        }
                    }
                }
                done += bytes;
                read(done);
                Ok(Continue(()))
            },
        )?;
        let hashed = out.finish().map_err(failed)?;
        let hash = hashed.hasher.finalize().to_hex().to_string();
        let record = PartRecord {
            file: shard_name(self.part),
            key: self.key.to_owned(),
            hash,
            bytes: hashed.bytes,
            tally,
        };
        aside::publish(hashed.file, &path)?;
        let quarantined = quarantine_path(self.folder, self.part);
        if !quarantine.is_empty() {
            aside::write(&quarantined, (quarantine.join("\n") + "\n").as_bytes())?;
        } else if quarantined.exists() {
            std::fs::remove_file(&quarantined).map_err(Error::io("remove", &quarantined))?;
        }
        aside::write_json(&record_path, &record)?;
        Ok(record)
    }
}
