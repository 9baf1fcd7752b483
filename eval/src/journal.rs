//! Answers that survive an interruption: a file for each list of requests of each checkpoint, a line for each answer.
//!
//! A journal is open once at a time (on Unix: an advisory lock that ends with the process). Its first line says what it is of. A line that an interruption tore is left out; a file that is of something else is begun anew.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scorer::{Request, Scored};
use crate::{Error, Result};

/// What a journal is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What gave the answers: checkpoint, backend, and what else decides the bits.
    pub checkpoint: String,
    /// The task.
    pub task: String,
    /// Examples a document.
    pub shots: usize,
    /// How many requests.
    pub requests: usize,
    /// [`digest`] of the requests.
    pub hash: String,
}

/// BLAKE3 of all contexts and continuations in their order, each behind its length in bytes (u64, little-endian).
#[must_use]
pub fn digest(requests: &[Request]) -> String {
    let mut hash = blake3::Hasher::new();
    for text in requests.iter().flat_map(|request| [&request.context, &request.continuation]) {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

/// An answer on its line. JSON has no infinity: null stands for that of an impossible continuation.
#[derive(Serialize, Deserialize)]
struct Line {
    request: usize,
    log_likelihood: Option<f64>,
    tokens: usize,
    is_greedy: bool,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of `key` in `folder`, which is made if it is not there, and gives the answers that it has, by request.
    ///
    /// # Errors
    /// The folder or the file cannot be written; another evaluation has it open.
    pub fn open(folder: &Path, key: &Key) -> Result<(Self, Vec<Option<Scored>>)> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let header =
            serde_json::to_string(key).map_err(|error| Error::io("write", folder)(error.into()))? + "\n";
        let name = blake3::hash(header.as_bytes()).to_hex();
        let path = folder.join(format!("{}-{}-{}.jsonl", key.task, key.shots, &name[..16]));
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        lock(&file, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let mut answers = vec![None; key.requests];
        let mut good = 0;
        if bytes.starts_with(header.as_bytes()) {
            good = header.len();
            for line in bytes[good..].split_inclusive(|byte| *byte == b'\n') {
                let read = line.ends_with(b"\n").then(|| serde_json::from_slice::<Line>(line).ok()).flatten();
                let Some(read) = read.filter(|read| read.request < key.requests) else { break };
                answers[read.request] = Some(Scored {
                    log_likelihood: read.log_likelihood.unwrap_or(f64::NEG_INFINITY),
                    tokens: read.tokens,
                    is_greedy: read.is_greedy,
                });
                good += line.len();
            }
        }
        file.set_len(good as u64).map_err(Error::io("write", &path))?;
        file.seek(SeekFrom::Start(good as u64)).map_err(Error::io("write", &path))?;
        if good == 0 {
            file.write_all(header.as_bytes()).map_err(Error::io("write", &path))?;
        }
        Ok((Self { path, file }, answers))
    }

    /// Writes an answer down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, request: usize, answer: &Scored) -> Result<()> {
        let Scored { log_likelihood, tokens, is_greedy } = *answer;
        let line = Line { request, log_likelihood: Some(log_likelihood), tokens, is_greedy };
        let text =
            serde_json::to_string(&line).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(Error::io("write", &self.path))
    }
}

/// Nobody else writes into the journal as long as it is open here. Where a file system knows no locks, none is held.
#[cfg(unix)]
fn lock(file: &File, path: &Path) -> Result<()> {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy { path: path.into() }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn lock(_file: &File, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_journal_is_open_once() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key { checkpoint: "a".into(), task: "wic".into(), shots: 1, requests: 3, hash: "h".into() };
        let answer = Scored { log_likelihood: -1.5, tokens: 2, is_greedy: true };
        let (mut journal, _) = Journal::open(folder.path(), &key).unwrap();
        journal.write(1, &answer).unwrap();
        let error = Journal::open(folder.path(), &key).unwrap_err();
        assert!(error.is_user() && error.to_string().contains("another evaluation"), "{error}");
        // Nothing of it was lost, another one is free, and so is this one when it is closed.
        Journal::open(folder.path(), &Key { shots: 2, ..key.clone() }).unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path(), &key).unwrap().1[1], Some(answer));
    }

    #[test]
    fn answers_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key { checkpoint: "a".into(), task: "wic".into(), shots: 1, requests: 3, hash: "h".into() };
        let answer = |log_likelihood| Scored { log_likelihood, tokens: 2, is_greedy: true };
        let (mut journal, known) = Journal::open(folder.path(), &key).unwrap();
        assert_eq!(known, [None; 3]);
        journal.write(2, &answer(-0.1 - 0.2)).unwrap();
        journal.write(0, &answer(f64::NEG_INFINITY)).unwrap();
        let path = journal.path.clone();
        drop(journal);
        // A line that was torn is left out, and written again.
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"request\":1,\"log_li"].concat()).unwrap();
        let (mut journal, known) = Journal::open(folder.path(), &key).unwrap();
        let expected = [Some(answer(f64::NEG_INFINITY)), None, Some(answer(-0.1 - 0.2))];
        assert_eq!(known, expected);
        journal.write(1, &answer(-1e-300)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path(), &key).unwrap().1[1], Some(answer(-1e-300)));
        // Of another checkpoint nothing is known.
        let other = Key { checkpoint: "b".into(), ..key.clone() };
        assert_eq!(Journal::open(folder.path(), &other).unwrap().1, [None; 3]);
        // A file of the same name that is of something else is begun anew.
        fs::write(&path, "{}\n{}\n").unwrap();
        assert_eq!(Journal::open(folder.path(), &key).unwrap().1, [None; 3]);
    }
}
