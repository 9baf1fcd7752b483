//! `--log-samples`: a line for each request, with what it was and what was answered.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::plan::Job;
use crate::run::{Requests, target};
use crate::scorer::Scored;
use crate::{Error, Result};

/// The file, which appears when it is whole.
#[derive(Debug)]
pub struct Samples {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

#[derive(Serialize)]
struct Sample<'a> {
    task: &'a str,
    shots: usize,
    doc_id: usize,
    /// Which of the document's requests: the choice, then the choices behind the baseline.
    request: usize,
    context: &'a str,
    continuation: &'a str,
    /// Null for minus infinity.
    log_likelihood: f64,
    tokens: usize,
    is_greedy: bool,
    target: serde_json::Value,
    /// Documents of the training file that stand before it, from 0, in their order.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    examples: &'a [usize],
}

impl Samples {
    /// Begins the file beside its place.
    ///
    /// # Errors
    /// The folder is not there or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), file: BufWriter::new(beside(path)?) })
    }

    /// Writes a job's requests.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn job(&mut self, job: &Job, built: &Requests, answers: &[Scored]) -> Result<()> {
        let mut before = None;
        let mut place = 0;
        for ((request, answer), document) in built.requests.iter().zip(answers).zip(&built.document) {
            place = if before == Some(*document) { place + 1 } else { 0 };
            before = Some(*document);
            let sample = Sample {
                task: job.task.name,
                shots: job.shots,
                doc_id: *document,
                request: place,
                context: &request.context,
                continuation: &request.continuation,
                log_likelihood: answer.log_likelihood,
                tokens: answer.tokens,
                is_greedy: answer.is_greedy,
                target: target(&job.evaluated()[*document]),
                examples: &built.examples[*document],
            };
            serde_json::to_writer(&mut self.file, &sample)
                .map_err(|error| Error::io("write", &self.path)(error.into()))?;
            self.file.write_all(b"\n").map_err(Error::io("write", &self.path))?;
        }
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn finish(self) -> Result<()> {
        let file =
            self.file.into_inner().map_err(|error| Error::io("write", &self.path)(error.into_error()))?;
        persist(file, &self.path)
    }
}

/// A temporary file in the folder of `path`.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(folder).map_err(Error::io("write into", folder))
}

fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.persist(path).map_err(|error| Error::io("write", path)(error.error))?;
    Ok(())
}

/// Writes a file whole, or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))?;
    persist(file, path)
}
