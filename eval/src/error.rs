//! The one error type of the crate: what is wrong, where, with which value, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a task's file and its score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is no task's.
    #[error("eval: there is no task {name:?}; give {known}")]
    UnknownTask {
        /// The name as given.
        name: String,
        /// Those that there are.
        known: String,
    },

    /// Files of tasks that are not there, all of them.
    #[error(
        "eval: {} not there:\n{}\n`mtnlg eval --formats` says what each task reads; another file is given with \
         --data TASK=FILE",
        count(files.len()),
        lines(files)
    )]
    MissingFiles {
        /// Task, what the file is for, and the places looked at.
        files: Vec<(String, String)>,
    },

    /// A document that cannot be read.
    #[error("eval: {}:{line}: {reason}; {task} reads {fields} (`mtnlg eval --formats`)", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
        /// The task that reads it.
        task: &'static str,
        /// What the task reads.
        fields: &'static str,
    },

    /// A file without documents.
    #[error("eval: {} holds no document; give the published file as JSON lines", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },

    /// Fewer training documents than examples are asked for.
    #[error(
        "eval: {task} with {shots} shots needs {needed} documents to choose from, {} has {found}; give a larger file \
         or fewer --shots",
        path.display()
    )]
    TooFewExamples {
        /// The task.
        task: &'static str,
        /// Examples a document.
        shots: usize,
        /// Documents that sampling needs.
        needed: usize,
        /// Documents that there are.
        found: usize,
        /// The training file.
        path: PathBuf,
    },

    /// An argument that cannot be used.
    #[error("eval: {name}: {value:?} {reason}")]
    Argument {
        /// The flag.
        name: &'static str,
        /// Its value.
        value: String,
        /// Why not, and what would do.
        reason: String,
    },

    /// An answer that is no number.
    #[error(
        "eval: {task}: the log-likelihood of request {request} (document {document}) is not a number; \
         are the checkpoint's weights finite? `mtnlg checkpoint verify` says"
    )]
    NotANumber {
        /// The task.
        task: &'static str,
        /// Index of the request.
        request: usize,
        /// Index of the document.
        document: usize,
    },

    /// A journal that another evaluation has open.
    #[error(
        "eval: another evaluation of the same checkpoint and task writes {}; wait for it, or give a --journal folder of its own",
        path.display()
    )]
    Busy {
        /// The journal.
        path: PathBuf,
    },

    /// A scorer that ended without all answers.
    #[error("eval: {task}: the scorer left {missing} of {requests} requests without an answer")]
    Unanswered {
        /// The task.
        task: &'static str,
        /// Requests without an answer.
        missing: usize,
        /// All requests.
        requests: usize,
    },

    /// The model failed.
    #[error(transparent)]
    Scorer(Box<dyn std::error::Error + Send + Sync>),

    /// The operating system refused.
    #[error("eval: cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn scorer(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Scorer(Box::new(error))
    }

    /// Whether the cause lies in what the user gave (arguments, files, disk), so that the program ends with code 2. Of [`Error::Scorer`] only the
    /// scorer knows.
    #[must_use]
    pub fn is_user(&self) -> bool {
        use io::ErrorKind as K;
        match self {
            Error::Io { source, .. } => matches!(
                source.kind(),
                K::NotFound
                    | K::PermissionDenied
                    | K::AlreadyExists
                    | K::NotADirectory
                    | K::IsADirectory
                    | K::ReadOnlyFilesystem
                    | K::StorageFull
                    | K::QuotaExceeded
                    | K::InvalidData
            ),
            Error::Scorer(_) | Error::Unanswered { .. } => false,
            _ => true,
        }
    }
}

fn count(files: usize) -> String {
    if files == 1 { "a file is".into() } else { format!("{files} files are") }
}

fn lines(files: &[(String, String)]) -> String {
    let all: Vec<String> = files.iter().map(|(task, place)| format!("  {task}: {place}")).collect();
    all.join("\n")
}
