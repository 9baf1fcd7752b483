//! The documents of several sources: their hash, and each of them once.

use super::{Progress, Stage};
use crate::source::Source;
use crate::tokenizer::TokenizerSpec;
use crate::{Error, Result};
use blake3::{Hash, Hasher};
use rayon::prelude::*;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Goes into the hash of a cache entry: raise it whenever the same inputs would be prepared otherwise.
const FORMAT: &str = "data 1";
/// Files hashed between two calls of the progress callback.
const BATCH: usize = 64;

/// What a preparation depends on.
pub(super) struct Scanned {
    /// Name of the cache entry.
    pub hash: String,
    /// Bytes of all inputs.
    pub bytes: u64,
}

/// Hash everything that decides the result: the sources' names, kinds, file names and contents, and the tokenizer. Weights and the places of files are no
/// part of it.
pub(super) fn scan(
    sources: &[&Source],
    tokenizer: &TokenizerSpec,
    json: Option<&[u8]>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scanned> {
    let mut hasher = Hasher::new();
    field(&mut hasher, FORMAT.as_bytes());
    match (tokenizer, json) {
        (_, Some(json)) => field(&mut hasher, json),
        (spec, None) => field(&mut hasher, spec.to_string().as_bytes()),
    }
    let mut files = Vec::new();
    for source in sources {
        files.push(source.files()?);
    }
    let on_disk: u64 = files.iter().flatten().map(|file| file.bytes).sum();
    let in_memory: u64 =
        sources.iter().flat_map(|source| source.in_memory()).map(|text| text.len() as u64).sum();
    let total = on_disk + in_memory;
    let mut done = 0;
    for (source, files) in sources.iter().zip(&files) {
        field(&mut hasher, source.name.as_bytes());
        field(&mut hasher, source.kind.name().as_bytes());
        let entries = files.len() + source.in_memory().len();
        field(&mut hasher, &(entries as u64).to_le_bytes());
        for text in source.in_memory() {
            field(&mut hasher, text.as_bytes());
            done += text.len() as u64;
        }
        for batch in files.chunks(BATCH) {
            let hashes: Vec<Result<Hash>> = batch
                .par_iter()
                .map(|file| {
                    let mut hasher = Hasher::new();
                    let read = std::fs::File::open(&file.path)
                        .and_then(|open| hasher.update_reader(open).map(|_| ()));
                    read.map(|()| hasher.finalize()).map_err(Error::io("read", &file.path))
                })
                .collect();
            for (file, hash) in batch.iter().zip(hashes) {
                field(&mut hasher, file.name.as_bytes());
                field(&mut hasher, hash?.as_bytes());
                done += file.bytes;
            }
            progress(Progress { stage: Stage::Scan, done, total });
        }
    }
    let hash = hasher.finalize().to_hex()[..32].to_owned();
    Ok(Scanned { hash, bytes: total })
}

/// Its length first, so that no two lists of fields hash alike.
fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Documents of one source that were given and that were dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub kept: u64,
    pub duplicates: u64,
}

/// Takes the index of the source, a document and the bytes of input read for it.
pub(super) type Sink<'a> = dyn FnMut(usize, String, u64) -> Result<ControlFlow<()>> + 'a;

/// Give every document whose text did not come before, in order. A break of the sink ends its source, not the others.
pub(super) fn unique(sources: &[&Source], sink: &mut Sink<'_>) -> Result<Vec<Counts>> {
    // Half of a hash is plenty: among 2^40 documents two differ and collide with probability 2^-49.
    let mut seen: HashSet<[u8; 16]> = HashSet::new();
    let mut counts = vec![Counts::default(); sources.len()];
    for (set, source) in sources.iter().enumerate() {
        let mut skipped = 0;
        source.documents(&mut |text, read| {
            let hash = blake3::hash(text.as_bytes());
            let (half, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
            if !seen.insert(*half) {
                counts[set].duplicates += 1;
                skipped += read;
                return Ok(ControlFlow::Continue(()));
            }
            counts[set].kept += 1;
            sink(set, text, read + std::mem::take(&mut skipped))
        })?;
        if counts[set].kept == 0 {
            return Err(nothing_in(source, counts[set].duplicates));
        }
    }
    Ok(counts)
}

fn nothing_in(source: &Source, duplicates: u64) -> Error {
    let path = source.path();
    if duplicates > 0 {
        let reason = format!("its {duplicates} documents are all in the sources before it");
        return Error::EmptyCorpus { path, reason, remedy: "leave it out" };
    }
    let (reason, remedy) = if path.is_dir() {
        (
            "no file under it has text and an extension that is read",
            "use .txt, .md, .html, .jsonl or source code",
        )
    } else {
        ("it is empty or white space", "give a file with text in it, or leave it out")
    };
    Error::EmptyCorpus { path, reason: reason.to_owned(), remedy }
}
