//! The default corpus: the documentation inside the Rust toolchain, which every rustup machine has.

use crate::build::{Recipe, RecipeSet};
use crate::input::{Source, SourceKind};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What installs the corpus where it is missing.
pub const REMEDY: &str = "rustup component add rust-docs";

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

/// The recipe of the default corpus, which is a file like any other: `configs/data/rust-docs.toml`.
const RECIPE: &str = include_str!("../../configs/data/rust-docs.toml");

/// The recipe for the toolchain's documentation, or for the fallback with a notice that names the remedy.
///
/// # Errors
/// [`Error::NoDefaultCorpus`] if the documentation is missing and there is no fallback.
pub fn default_recipe(fallback: &Fallback) -> Result<(Recipe, Vec<Notice>)> {
    let mut recipe = Recipe::parse(RECIPE, Path::new("rust-docs.toml"))?;
    recipe.bad_limit = Some(0);
    let reason = match recipe.open() {
        Ok(_) => return Ok((recipe, Vec::new())),
        Err(Error::NoDefaultCorpus { reason }) => reason,
        Err(error) => return Err(error),
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
    let source = Source { name: "repository".to_owned(), weight: None, kind };
    recipe.sets = vec![RecipeSet { name: source.name.clone(), weight: None, sources: vec![source] }];
    recipe.stages.iter_mut().for_each(|stage| stage.sets = vec![0]);
    Ok((recipe, vec![Notice { message, remedy }]))
}

/// One book of the toolchain's documentation.
///
/// # Errors
/// [`Error::NoDefaultCorpus`] if it is not there.
pub fn book(name: &str) -> Result<Source> {
    let html = documentation().map_err(|reason| Error::NoDefaultCorpus { reason })?;
    book_in(&html, name).map_err(|reason| Error::NoDefaultCorpus { reason })
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

fn book_in(html: &Path, name: &str) -> std::result::Result<Source, String> {
    let folder = html.join(name);
    if folder.join("index.html").is_file() {
        Ok(Source { name: name.to_owned(), weight: None, kind: SourceKind::MdBook(folder) })
    } else {
        Err(format!("{} does not exist", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_set_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("book")).unwrap();
        std::fs::write(folder.path().join("book/index.html"), "").unwrap();
        assert!(book_in(folder.path(), "book").is_ok());
        let reason = book_in(folder.path(), "reference").unwrap_err();
        assert!(reason.contains("reference"), "{reason}");
    }

    #[test]
    fn the_remedy_is_in_the_message() {
        let error = Error::NoDefaultCorpus { reason: "x".into() };
        assert!(error.to_string().contains(REMEDY));
        assert!(error.is_user());
    }
}
