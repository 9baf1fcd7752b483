//! The default corpus: the documentation inside the Rust toolchain, which every rustup machine has.

use crate::source::{Source, SourceKind};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What installs the corpus where it is missing.
pub const REMEDY: &str = "rustup component add rust-docs";

/// The sets, in order: of equal documents the one in the earliest set is kept.
pub const SETS: [&str; 6] = ["book", "reference", "nomicon", "rust-by-example", "cargo", "rustc"];

/// What stands in for the documentation where it is missing.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// The text files under a folder, for example a checkout of the repository.
    Folder(PathBuf),
    /// Documents inside the program.
    Documents(Arc<[String]>),
    /// Nothing: a missing component is an error.
    None,
}

/// Something that the user should be told, though work goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub message: String,
    /// What would change it, for example a command to type.
    pub remedy: String,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// The six sets of the toolchain's documentation, or the fallback with a notice that names the remedy.
///
/// # Errors
/// [`Error::NoDefaultCorpus`] if the documentation is missing and there is no fallback.
pub fn default_sources(fallback: &Fallback) -> Result<(Vec<Source>, Vec<Notice>)> {
    let reason = match documentation() {
        Ok(html) => match sets_in(&html) {
            Ok(sources) => return Ok((sources, Vec::new())),
            Err(reason) => reason,
        },
        Err(reason) => reason,
    };
    let kind = match fallback {
        Fallback::Folder(path) => SourceKind::Folder(path.clone()),
        Fallback::Documents(documents) => SourceKind::Memory(Arc::clone(documents)),
        Fallback::None => return Err(Error::NoDefaultCorpus { reason }),
    };
    let message = format!(
        "the toolchain's documentation is not there ({reason}), so the repository's own text is used"
    );
    let remedy = format!("`{REMEDY}` installs it");
    Ok((vec![Source { name: "repository".to_owned(), weight: None, kind }], vec![Notice { message, remedy }]))
}

/// The folder of the toolchain's HTML documentation, or why there is none.
fn documentation() -> std::result::Result<PathBuf, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output();
    let name = rustc.to_string_lossy();
    let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{name} --print sysroot` failed: {}", output.status));
    }
    let sysroot = String::from_utf8_lossy(&output.stdout);
    Ok(Path::new(sysroot.trim_end_matches(['\r', '\n'])).join("share").join("doc").join("rust").join("html"))
}

/// The six sets under `html`; all must be there.
fn sets_in(html: &Path) -> std::result::Result<Vec<Source>, String> {
    let source = |name: &str| {
        let folder = html.join(name);
        if folder.join("index.html").is_file() {
            Ok(Source { name: name.to_owned(), weight: None, kind: SourceKind::MdBook(folder) })
        } else {
            Err(format!("{} does not exist", folder.display()))
        }
    };
    SETS.into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_set_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("book")).unwrap();
        std::fs::write(folder.path().join("book/index.html"), "").unwrap();
        let reason = sets_in(folder.path()).unwrap_err();
        assert!(reason.contains("reference"), "{reason}");
    }

    #[test]
    fn the_remedy_is_in_the_message() {
        let error = Error::NoDefaultCorpus { reason: "x".into() };
        assert!(error.to_string().contains(REMEDY));
        assert!(error.is_user());
    }
}
