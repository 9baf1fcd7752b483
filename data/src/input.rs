//! Where records come from: what the user names as `[weight=]PATH` or in a recipe, the output of a step, and the sets of the default corpus.
//!
//! | file | records |
//! |---|---|
//! | `.jsonl`, `.ndjson` | the field `text` of every line ([`Record::from_json`]) |
//! | `.warc` | pages and texts of a crawl ([`warc`]) |
//! | `.html`, `.htm` | the page, of which `extract` takes the text |
//! | any other, named itself | about a hundred pieces of 2 to 64 KiB, cut at empty lines, so that some can be held out for validation |
//! | any other, in a folder | the whole file, if its extension is one of [`EXTENSIONS`] |
//!
//! Each may be compressed, with a further `.gz` or `.zst`. Of a folder every file is taken, in the order of their paths; hidden files and folders, links to
//! folders, `target` and `node_modules` are left out.
//!
//! [`Files::stream`] reads on one thread and parses on all; what it gives is in the order of the input, whatever their number. Whatever cannot be read as a
//! record is a [`Bad`](crate::record::Bad) one, with its file, offset and reason.

mod decode;
mod lines;
mod parse;
mod stream;
mod walk;
pub mod warc;

pub use decode::decode_html;
pub use parse::Raw;
pub use stream::{Item, read_items};

use crate::record::Record;
use crate::{Error, Result, indexed};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Extensions of the files of a folder that are read, in lower case, besides those of compression.
pub const EXTENSIONS: &[&str] = &[
    "adoc", "c", "cc", "cpp", "cs", "css", "csv", "cu", "go", "h", "hpp", "htm", "html", "java", "jl", "js",
    "jsonl", "lean", "lua", "markdown", "md", "ml", "ndjson", "py", "r", "rb", "rs", "rst", "scala", "sh",
    "sql", "swift", "tex", "text", "toml", "ts", "txt", "warc", "wgsl", "yaml", "yml",
];

/// One source of documents; one set of the blend.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the set.
    pub name: String,
    /// Sampling weight; `None`: in proportion to tokens.
    pub weight: Option<f64>,
    /// Where its documents are.
    pub kind: SourceKind,
}

/// The kinds of source.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// One file.
    File(PathBuf),
    /// Every file under a folder.
    Folder(PathBuf),
    /// The prefix of a `.bin/.idx` pair: tokens, not text.
    Tokens(PathBuf),
    /// A book made by mdBook: its English pages, without the printed whole, the table of contents and other books inside it.
    MdBook(PathBuf),
    /// Documents in memory.
    Memory(Arc<[String]>),
}

impl Source {
    /// Read an argument `[weight=]PATH`.
    ///
    /// # Errors
    /// [`Error::InvalidWeight`] if what stands before `=` is not a positive number; [`Error::MissingPath`]; [`Error::UnknownKind`].
    pub fn parse(argument: &str) -> Result<Self> {
        let whole = Path::new(argument);
        let (weight, path) = match argument.split_once('=') {
            // A path may hold an equals sign itself.
            Some((before, after)) if !whole.exists() && !before.contains(['/', '\\']) => {
                let weight =
                    before.trim().parse().ok().filter(|weight: &f64| weight.is_finite() && *weight > 0.0);
                let Some(weight) = weight else {
                    return Err(Error::InvalidWeight {
                        value: before.to_owned(),
                        argument: argument.to_owned(),
                    });
                };
                (Some(weight), Path::new(after))
            }
            _ => (None, whole),
        };
        let kind = SourceKind::detect(path)?;
        let name = match &kind {
            SourceKind::Folder(path) => {
                path.canonicalize().ok().unwrap_or_else(|| path.clone()).file_name().map(Into::into)
            }
            SourceKind::Tokens(prefix) => prefix.file_name().map(Into::into),
            _ => Path::new(walk::uncompressed(path)).file_stem().map(PathBuf::from),
        };
        let name =
            name.map_or_else(|| "data".to_owned(), |name: PathBuf| name.to_string_lossy().into_owned());
        Ok(Source { name, weight, kind })
    }

    /// Where the source is, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.kind {
            SourceKind::File(path)
            | SourceKind::Folder(path)
            | SourceKind::Tokens(path)
            | SourceKind::MdBook(path) => path.clone(),
            SourceKind::Memory(_) => PathBuf::from(&self.name),
        }
    }

    /// The files that hold the documents, with the names that they are ordered by. A pair of tokens has none.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be listed.
    pub fn files(&self) -> Result<Files> {
        Ok(Files(match &self.kind {
            SourceKind::File(path) => vec![InputFile::single(path)?],
            SourceKind::Tokens(_) => Vec::new(),
            SourceKind::Folder(folder) => walk::text_files(folder)?,
            SourceKind::MdBook(folder) => walk::book_pages(folder)?,
            SourceKind::Memory(documents) => vec![InputFile::memory(&self.name, documents)],
        }))
    }
}

impl SourceKind {
    /// What a path is, by what lies there.
    ///
    /// # Errors
    /// [`Error::MissingPath`], [`Error::UnknownKind`].
    pub fn detect(path: &Path) -> Result<Self> {
        let owned = path.to_path_buf();
        if path.is_dir() {
            return Ok(SourceKind::Folder(owned));
        }
        let extension = walk::extension(path);
        if matches!(extension.as_str(), "bin" | "idx") && (path.is_file() || path.with_extension("").exists())
        {
            return Ok(SourceKind::Tokens(path.with_extension("")));
        }
        if path.is_file() {
            return Ok(SourceKind::File(owned));
        }
        if path.exists() {
            let expected = "a file, a folder or the prefix of a .bin/.idx pair";
            return Err(Error::UnknownKind {
                path: owned,
                found: "neither file nor folder".to_owned(),
                expected,
            });
        }
        if indexed::idx_path(path).exists() || indexed::bin_path(path).exists() {
            return Ok(SourceKind::Tokens(owned));
        }
        Err(Error::MissingPath { path: owned })
    }
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A record a line.
    Jsonl,
    /// A crawl's archive.
    Warc,
    /// A page.
    Html,
    /// One document.
    Text,
    /// Text that is cut into documents.
    Pieces,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one member or many.
    Gzip,
    /// zstd, of one frame or many.
    Zstd,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub enum Place {
    /// On disk.
    Disk(PathBuf),
    /// Documents in memory.
    Memory(Arc<[String]>),
}

/// A file of a source.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Where it is.
    pub place: Place,
    /// Its name inside the source, with `/` between folders: the same on every system.
    pub name: String,
    /// Its size in bytes, as it lies there.
    pub bytes: u64,
    /// What it holds.
    pub format: Format,
    /// How it is compressed.
    pub compression: Compression,
    /// The hash of its bytes, where it was written with it.
    known: Option<blake3::Hash>,
}

impl InputFile {
    /// A file that is named itself.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be looked at.
    pub fn single(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut file = InputFile::new(path.to_owned(), name, bytes);
        if file.format == Format::Text {
            file.format = Format::Pieces;
        }
        Ok(file)
    }

    fn new(path: PathBuf, name: String, bytes: u64) -> Self {
        let compression = match walk::extension(&path).as_str() {
            "gz" | "gzip" => Compression::Gzip,
            "zst" | "zstd" => Compression::Zstd,
            _ => Compression::None,
        };
        let format = match walk::extension(Path::new(walk::uncompressed(&path))).as_str() {
            "jsonl" | "ndjson" => Format::Jsonl,
            "warc" => Format::Warc,
            "html" | "htm" => Format::Html,
            _ => Format::Text,
        };
        InputFile { place: Place::Disk(path), name, bytes, format, compression, known: None }
    }

    /// A file that a step wrote.
    pub(crate) fn known(path: &Path, name: String, bytes: u64, hash: &str) -> Self {
        InputFile { known: blake3::Hash::from_hex(hash).ok(), ..InputFile::new(path.to_owned(), name, bytes) }
    }

    fn memory(name: &str, documents: &Arc<[String]>) -> Self {
        InputFile {
            place: Place::Memory(Arc::clone(documents)),
            name: name.to_owned(),
            bytes: documents.iter().map(|text| text.len() as u64).sum(),
            format: Format::Text,
            compression: Compression::None,
            known: None,
        }
    }

    /// Its path, or its name if it is in memory; for messages.
    #[must_use]
    pub fn display(&self) -> String {
        match &self.place {
            Place::Disk(path) => path.display().to_string(),
            Place::Memory(_) => self.name.clone(),
        }
    }

    /// The hash of its bytes as they lie there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn hash(&self) -> Result<blake3::Hash> {
        if let Some(hash) = self.known {
            return Ok(hash);
        }
        let mut hasher = blake3::Hasher::new();
        match &self.place {
            Place::Disk(path) => {
                let open = std::fs::File::open(path).map_err(Error::io("read", path))?;
                hasher.update_reader(open).map_err(Error::io("read", path))?;
            }
            Place::Memory(documents) => {
                for text in documents.iter() {
                    hasher.update(&(text.len() as u64).to_le_bytes());
                    hasher.update(text.as_bytes());
                }
            }
        }
        Ok(hasher.finalize())
    }
}

/// Files in their order.
#[derive(Debug, Clone, Default)]
pub struct Files(pub Vec<InputFile>);

impl Files {
    /// Bytes of all of them, as they lie there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|file| file.bytes).sum()
    }

    /// The files of paths: files, and every file under folders.
    ///
    /// # Errors
    /// [`Error::MissingPath`], [`Error::UnknownKind`], [`Error::Io`].
    pub fn of_paths(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            match SourceKind::detect(&path)? {
                SourceKind::Tokens(path) => {
                    let (found, expected) = ("tokens".to_owned(), "text: a file or a folder");
                    return Err(Error::UnknownKind { path, found, expected });
                }
                kind => {
                    let source = Source { name: path.display().to_string(), weight: None, kind };
                    files.extend(source.files()?.0);
                }
            }
        }
        Ok(Files(files))
    }

    /// Their records, in order, until the sink breaks; bad ones are an error.
    ///
    /// # Errors
    /// [`Error::BadRecord`] for the first that cannot be read; [`Error::Io`].
    pub fn records(&self, sink: &mut dyn FnMut(Record) -> Result<ControlFlow<()>>) -> Result<()> {
        self.stream(|_, record| record, &mut |record, _| match record {
            Ok(record) => sink(record),
            Err(bad) => Err(Error::BadRecord { bad }),
        })
    }
}
