//! Which files belong to a source, in the order of their names.

use super::{EXTENSIONS, InputFile};
use crate::{Error, Result};
use std::fs;
use std::path::Path;

/// Folders that hold what was built or fetched, not written.
const LEFT_OUT: &[&str] = &["node_modules", "target"];
/// Pages at the root of a book that repeat the others or say nothing.
const NOT_PAGES: &[&str] = &["404.html", "print.html", "toc.html"];

/// The extension in lower case; empty if there is none.
pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The name of a file without the extension of its compression.
pub(super) fn uncompressed(path: &Path) -> &std::ffi::OsStr {
    match extension(path).as_str() {
        "gz" | "gzip" | "zst" | "zstd" => path.file_stem().unwrap_or_default(),
        _ => path.file_name().unwrap_or_default(),
    }
}

fn is_html(path: &Path) -> bool {
    matches!(extension(path).as_str(), "html" | "htm")
}

/// The text files under a folder.
pub(super) fn text_files(folder: &Path) -> Result<Vec<InputFile>> {
    collect(folder, &|entry| match entry.kind {
        Kind::Folder => !LEFT_OUT.contains(&entry.name),
        Kind::File => EXTENSIONS.contains(&extension(Path::new(uncompressed(entry.path))).as_str()),
    })
}

/// The pages of a book made by mdBook.
pub(super) fn book_pages(folder: &Path) -> Result<Vec<InputFile>> {
    collect(folder, &|entry| match entry.kind {
        // A table of contents marks another book: a translation, or an edition that is no longer distributed.
        Kind::Folder => !entry.path.join("toc.html").exists(),
        Kind::File => is_html(entry.path) && !(entry.depth == 0 && NOT_PAGES.contains(&entry.name)),
    })
}

enum Kind {
    Folder,
    File,
}

struct Entry<'a> {
    path: &'a Path,
    name: &'a str,
    kind: Kind,
    /// Folders between it and the root.
    depth: usize,
}

fn collect(root: &Path, wanted: &dyn Fn(&Entry<'_>) -> bool) -> Result<Vec<InputFile>> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_path_buf(), String::new(), 0)];
    while let Some((folder, inside, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let path = entry.path();
            let file_name = entry.file_name();
            let name = file_name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let file_type = entry.file_type().map_err(Error::io("read", &path))?;
            let inside_name = format!("{inside}{name}");
            if file_type.is_dir() {
                if wanted(&Entry { path: &path, name: &name, kind: Kind::Folder, depth }) {
                    folders.push((path, inside_name + "/", depth + 1));
                }
            } else if wanted(&Entry { path: &path, name: &name, kind: Kind::File, depth }) {
                // Through links, so that one to a folder (which could lead round in a circle) is left out here.
                let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
                if metadata.is_file() {
                    files.push(InputFile::new(path, inside_name, metadata.len()));
                }
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
