//! The one message that a user reads when something is wrong, and the exit code that goes with it.
//!
//! An [`Error`] says what is wrong, where, which value, and what to do about it; every part but the first may be absent:
//!
//! ```text
//! error: unknown key `warmup` in [train]
//!   where: laptop.toml:12
//!   remedy: did you mean `warmup_steps`?
//! ```

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it is, and so which exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user's input or machine can mend it: exit code 2.
    User,
    /// Anything else: exit code 1.
    Other,
}

/// What went wrong, as the user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    value: Option<String>,
    remedy: Option<String>,
}

impl Error {
    /// A mistake that the user can mend; `what` is a sentence without a full stop.
    pub fn user(what: impl Into<String>) -> Self {
        Self { kind: Kind::User, what: what.into(), place: None, value: None, remedy: None }
    }

    /// Any other failure.
    pub fn other(what: impl Into<String>) -> Self {
        Self { kind: Kind::Other, ..Self::user(what) }
    }

    /// A failed operation on a file or directory: `cannot <doing>: <reason>`. What the user can mend (a path that is not there, no permission, a full
    /// disk) is [`Kind::User`].
    pub fn io(doing: &str, path: &Path, source: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let theirs = matches!(
            source.kind(),
            E::NotFound
                | E::PermissionDenied
                | E::StorageFull
                | E::QuotaExceeded
                | E::ReadOnlyFilesystem
                | E::IsADirectory
                | E::NotADirectory
                | E::AlreadyExists
        );
        let what = format!("cannot {doing}: {source}");
        let error = if theirs { Self::user(what) } else { Self::other(what) };
        error.at(path.display().to_string())
    }

    /// Where: a file and line, a flag, a path.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The value that was refused.
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// What to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// 2 for the user's input, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::User => 2,
            Kind::Other => 1,
        }
    }

    /// Prints `error: ...` to stderr and gives the exit code for `main`.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(self.exit_code())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (label, part) in [("where", &self.place), ("value", &self.value), ("remedy", &self.remedy)] {
            if let Some(part) = part {
                write!(f, "\n  {label}: {part}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_only_the_parts_that_are_known() {
        assert_eq!(Error::user("no data").to_string(), "no data");
        let full = Error::user("not a number").at("--set train.lr").value("\"fast\"").remedy("give a number");
        assert_eq!(
            full.to_string(),
            "not a number\n  where: --set train.lr\n  value: \"fast\"\n  remedy: give a number"
        );
    }

    #[test]
    fn exit_codes() {
        assert_eq!(Error::user("x").exit_code(), 2);
        assert_eq!(Error::other("x").exit_code(), 1);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Error::io("write", Path::new("/a"), &full).exit_code(), 2);
        let odd = std::io::Error::from(std::io::ErrorKind::TimedOut);
        assert_eq!(Error::io("write", Path::new("/a"), &odd).exit_code(), 1);
    }
}
