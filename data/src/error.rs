//! The one error type of the crate.
//!
//! Every variant says what is wrong, where, with which value, and what to do about it; its `Display` is the whole message.

use std::io;
use std::path::{Path, PathBuf};

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a user's text and a training sample.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path given by the user leads nowhere.
    #[error("data: {} does not exist; give a text file, a folder, a .jsonl file or the prefix of a .bin/.idx pair", path.display())]
    MissingPath {
        /// The path as given.
        path: PathBuf,
    },

    /// A path exists but is of no kind that can be read.
    #[error("data: cannot tell what {} is: {found}; expected {expected}", path.display())]
    UnknownKind {
        /// The path as given.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What would do.
        expected: &'static str,
    },

    /// A source holds no text at all.
    #[error("data: {} holds no text: {reason}; {remedy}", path.display())]
    EmptyCorpus {
        /// The source.
        path: PathBuf,
        /// Why nothing was found.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },

    /// The list of sources is empty.
    #[error("data: no source of text was given; give at least one, or none at all for the default corpus")]
    NoSources,

    /// The toolchain's documentation is missing and there is nothing to fall back to.
    #[error(
        "data: the default corpus is not there: {reason}; install it with `{}` or give --data PATH",
        crate::corpus::REMEDY
    )]
    NoDefaultCorpus {
        /// What was looked for and not found.
        reason: String,
    },

    /// A weight that is not a positive, finite number.
    #[error(
        "data: weight {value:?} of {argument:?} is not a positive number; write [weight=]PATH, for example 0.3=notes.txt"
    )]
    InvalidWeight {
        /// The weight as given.
        value: String,
        /// The argument that it stands in.
        argument: String,
    },

    /// Some sources have a weight and some have none.
    #[error(
        "data: {unweighted} has no weight while {weighted} has one; give every source a weight, or none (then they are proportional to tokens)"
    )]
    MixedWeights {
        /// A source with a weight.
        weighted: String,
        /// A source without.
        unweighted: String,
    },

    /// A record that cannot be read, where all must be.
    #[error("data: {bad}; mend it, convert it (for example with `iconv -t UTF-8`) or leave it out")]
    BadRecord {
        /// The record.
        bad: crate::record::Bad,
    },

    /// More records cannot be read than were allowed.
    #[error(
        "data: {bad}; with it over {limit} records cannot be read: mend the file, leave it out or raise the limit"
    )]
    TooManyBad {
        /// How many were allowed.
        limit: u64,
        /// The one too many.
        bad: crate::record::Bad,
    },

    /// A folder that a step may not write into.
    #[error("data: cannot write a step into {}: {reason}; give another folder with --output", path.display())]
    OutputInUse {
        /// The folder.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },

    /// A step's folder that is not whole.
    #[error("data: {}: {reason}", path.display())]
    Manifest {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },

    /// A `.bin/.idx` pair whose contents contradict themselves.
    #[error("data: {} is damaged: {field} is {found}, expected {expected}; prepare it again, or restore both the .bin and the .idx of the pair", path.display())]
    DamagedIndex {
        /// The file at fault.
        path: PathBuf,
        /// The field of the format.
        field: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },

    /// A `.bin/.idx` pair that is whole but of a kind this reader does not take.
    #[error("data: {}: {field} is {found}, expected {expected}; write it with Megatron's preprocess_data.py or with `mtnlg data`", path.display())]
    UnsupportedIndex {
        /// The file at fault.
        path: PathBuf,
        /// The field of the format.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What is supported.
        expected: &'static str,
    },

    /// A token that the model's vocabulary does not have.
    #[error("data: {} holds token {token} at position {position}, but the vocabulary has {vocab_size}; name the tokenizer that made the file, or a model with a larger vocabulary", path.display())]
    TokenOutOfVocabulary {
        /// The `.bin` file.
        path: PathBuf,
        /// Index of the token in the file.
        position: u64,
        /// The token.
        token: i64,
        /// The size of the vocabulary.
        vocab_size: usize,
    },

    /// A tokenizer that cannot be read or lacks what is needed.
    #[error("tokenizer: {what}: {reason}; {remedy}")]
    Tokenizer {
        /// The file or name of the tokenizer.
        what: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A recipe that cannot be used.
    #[error("data: {}: {reason}", path.display())]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        reason: String,
    },

    /// A train/valid/test split that is not one.
    #[error("data: split {value:?} {reason}; write up to three non-negative numbers, for example 949,50,1")]
    InvalidSplit {
        /// The split as given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// No set has a sample in the split asked for.
    #[error(
        "data: the {part} split holds no sample of {sequence} + 1 tokens: it has {tokens} tokens, of {documents} documents cut {split}; give more documents, a shorter sequence or another split"
    )]
    EmptySplit {
        /// The part.
        part: crate::split::Part,
        /// Tokens of a sample's input.
        sequence: usize,
        /// Tokens in that part of all sets together.
        tokens: u64,
        /// Documents in all sets together.
        documents: u64,
        /// The split in force.
        split: crate::split::Split,
    },

    /// Tokens were given without the tokenizer that made them.
    #[error("data: {} holds tokens, but a tokenizer is to be trained on text; name the one that made them: tokenizer = \"gpt2\" or the path of its tokenizer.json", path.display())]
    TokensNeedTokenizer {
        /// The prefix of the pair.
        path: PathBuf,
    },

    /// An argument out of its range.
    #[error("data: {name} is {value}, expected {expected}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: String,
        /// Its range.
        expected: String,
    },

    /// The operating system refused.
    #[error("data: cannot {action} {}: {source}{}", path.display(), io_remedy(source))]
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

    pub(crate) fn too_many_bad(limit: u64, bad: crate::record::Bad) -> Error {
        match limit {
            0 => Error::BadRecord { bad },
            limit => Error::TooManyBad { limit, bad },
        }
    }

    /// Whether the cause lies in what the user gave (arguments, files, disk), so that the program ends with code 2.
    ///
    /// All variants but an input/output error that no file or disk of the user's explains.
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
                    | K::FileTooLarge
                    | K::InvalidInput
                    | K::UnexpectedEof
            ),
            _ => true,
        }
    }
}

fn io_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another cache folder"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check its permissions or choose another folder"
        }
        io::ErrorKind::UnexpectedEof => "; the file was cut short while it was in use",
        _ => "",
    }
}
