//! Where text comes from: what the user names with `--data [weight=]PATH`, and the sets of the default corpus.
//!
//! | PATH | documents |
//! |---|---|
//! | a text file | about a hundred pieces of 2 to 64 KiB, cut at empty lines, so that some can be held out for validation |
//! | a folder | every file under it with an extension of [`EXTENSIONS`], in the order of their paths; hidden files and folders, links to folders, `target` and `node_modules` are left out |
//! | a `.jsonl` file | the field `text` of every line |
//! | the prefix of a `.bin/.idx` pair | tokens already; used where they lie |
//!
//! HTML files give their main text ([`crate::html`]). Documents come in a fixed order, without the empty ones.

mod read;
mod walk;

use crate::{Error, Result, indexed};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Extensions of the files of a folder that are read, in lower case.
pub const EXTENSIONS: &[&str] = &[
    "adoc", "c", "cc", "cpp", "cs", "css", "csv", "cu", "go", "h", "hpp", "htm", "html", "java", "jl", "js",
    "jsonl", "lean", "lua", "markdown", "md", "ml", "py", "r", "rb", "rs", "rst", "scala", "sh", "sql",
    "swift", "tex", "text", "toml", "ts", "txt", "wgsl", "yaml", "yml",
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
    /// One text file, cut into documents.
    TextFile(PathBuf),
    /// A folder, each file a document.
    Folder(PathBuf),
    /// JSON lines with a field `text`.
    Jsonl(PathBuf),
    /// The prefix of a `.bin/.idx` pair.
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
            _ => path.file_stem().map(PathBuf::from),
        };
        let name =
            name.map_or_else(|| "data".to_owned(), |name: PathBuf| name.to_string_lossy().into_owned());
        Ok(Source { name, weight, kind })
    }

    /// Where the source is, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.kind {
            SourceKind::TextFile(path)
            | SourceKind::Folder(path)
            | SourceKind::Jsonl(path)
            | SourceKind::Tokens(path)
            | SourceKind::MdBook(path) => path.clone(),
            SourceKind::Memory(_) => PathBuf::from(&self.name),
        }
    }

    /// The files that hold the documents, with the names that they are ordered by; none for documents in memory.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be listed.
    pub fn files(&self) -> Result<Vec<SourceFile>> {
        match &self.kind {
            SourceKind::TextFile(path) | SourceKind::Jsonl(path) => Ok(vec![SourceFile::single(path)?]),
            SourceKind::Tokens(prefix) => [indexed::idx_path(prefix), indexed::bin_path(prefix)]
                .iter()
                .map(|path| SourceFile::single(path))
                .collect(),
            SourceKind::Folder(folder) => walk::text_files(folder),
            SourceKind::MdBook(folder) => walk::book_pages(folder),
            SourceKind::Memory(_) => Ok(Vec::new()),
        }
    }

    /// Give every document to `sink`, in order, with the bytes of input read for it, until it breaks.
    ///
    /// # Errors
    /// Those of `sink`; [`Error::Io`], [`Error::NotUtf8`], [`Error::Jsonl`]. A source of tokens has no documents.
    pub fn documents(&self, sink: &mut Sink<'_>) -> Result<()> {
        // Whether the sink broke off makes no difference here.
        let _: ControlFlow<()> = match &self.kind {
            SourceKind::TextFile(path) if !walk::is_html(path) => read::cut_file(path, sink)?,
            SourceKind::Jsonl(path) => read::jsonl(path, sink)?,
            SourceKind::TextFile(_) | SourceKind::Folder(_) => {
                read::files(&self.files()?, read::Page::Any, sink)?
            }
            SourceKind::MdBook(_) => read::files(&self.files()?, read::Page::EnglishMain, sink)?,
            SourceKind::Memory(documents) => read::memory(documents, sink)?,
            SourceKind::Tokens(_) => ControlFlow::Continue(()),
        };
        Ok(())
    }
}

impl Source {
    /// The documents of a source in memory; none of any other.
    pub(crate) fn in_memory(&self) -> &[String] {
        match &self.kind {
            SourceKind::Memory(documents) => documents,
            _ => &[],
        }
    }
}

/// Takes a document and the bytes of input read for it.
pub type Sink<'a> = dyn FnMut(String, u64) -> Result<ControlFlow<()>> + 'a;

impl SourceKind {
    /// A word for each kind, part of the hash of a cache entry.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            SourceKind::TextFile(_) => "text",
            SourceKind::Folder(_) => "folder",
            SourceKind::Jsonl(_) => "jsonl",
            SourceKind::Tokens(_) => "tokens",
            SourceKind::MdBook(_) => "mdbook",
            SourceKind::Memory(_) => "memory",
        }
    }

    fn detect(path: &Path) -> Result<Self> {
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
            return match extension.as_str() {
                "jsonl" | "ndjson" => Ok(SourceKind::Jsonl(owned)),
                _ => Ok(SourceKind::TextFile(owned)),
            };
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

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name inside the source, with `/` between folders: the same on every system.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl SourceFile {
    fn single(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        Ok(SourceFile { path: path.to_owned(), name: walk::extension(path), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn documents(source: &Source) -> Result<Vec<String>> {
        let mut all = Vec::new();
        source.documents(&mut |text, _| {
            all.push(text);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    #[test]
    fn arguments() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [("a.txt", "alpha"), ("b.jsonl", "{\"text\": \"beta\"}\n"), ("c=d.txt", "x")] {
            fs::write(at(name), text).unwrap();
        }
        let source = Source::parse(&format!("0.25={}", at("a.txt"))).unwrap();
        assert_eq!((source.name.as_str(), source.weight), ("a", Some(0.25)));
        assert_eq!(documents(&source).unwrap(), ["alpha"]);
        assert!(matches!(Source::parse(&at("b.jsonl")).unwrap().kind, SourceKind::Jsonl(_)));
        let equals = Source::parse(&at("c=d.txt")).unwrap();
        assert_eq!((equals.name.as_str(), equals.weight), ("c=d", None));
        assert!(matches!(Source::parse(&at("")).unwrap().kind, SourceKind::Folder(_)));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            let argument = format!("{bad}={}", at("a.txt"));
            let error = Source::parse(&argument).unwrap_err();
            assert!(matches!(&error, Error::InvalidWeight { value, .. } if value == bad), "{error}");
        }
        assert!(matches!(Source::parse(&at("none.txt")), Err(Error::MissingPath { .. })));
        assert!(matches!(Source::parse(&format!("1={}", at("none"))), Err(Error::MissingPath { .. })));
    }

    #[test]
    fn prefixes_of_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set.v1");
        indexed::Writer::create(&prefix, indexed::TokenType::U16).unwrap().finish().unwrap();
        for argument in [prefix.clone(), indexed::bin_path(&prefix), indexed::idx_path(&prefix)] {
            let source = Source::parse(&argument.display().to_string()).unwrap();
            assert!(matches!(&source.kind, SourceKind::Tokens(found) if *found == prefix), "{source:?}");
            assert_eq!(source.name, "set.v1");
        }
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("b.md", b"# b\n");
        write("a/z.rs", b"\xef\xbb\xbffn z() {}\n");
        write("a/y.HTML", b"<body>page</body>");
        write("c.jsonl", b"{\"text\":\"one\"}\n\n{\"id\":3,\"text\":\"two\"}\n");
        write("empty.txt", b" \n");
        write("image.png", b"\x89PNG");
        write(".hidden/x.txt", b"hidden");
        write("target/x.txt", b"built");
        let source = Source::parse(&folder.path().display().to_string()).unwrap();
        assert_eq!(documents(&source).unwrap(), ["page", "fn z() {}", "# b", "one", "two"]);
        write("d.txt", b"ab\xffc");
        assert!(matches!(documents(&source), Err(Error::NotUtf8 { offset: 2, .. })));
    }

    #[test]
    fn jsonl_mistakes_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let source = Source { name: "a".into(), weight: None, kind: SourceKind::Jsonl(path.clone()) };
        for bad in ["{\"text\": 3}", "{\"body\": \"x\"}", "not json", "{\"text\": \"x\"", "[\"text\"]"] {
            fs::write(&path, format!("{{\"text\":\"good\"}}\n{bad}\n")).unwrap();
            let error = documents(&source).unwrap_err();
            assert!(matches!(error, Error::Jsonl { line: 2, .. }), "{bad}: {error}");
        }
        fs::write(&path, b"{\"text\":\"\xff\"}").unwrap();
        assert!(matches!(documents(&source), Err(Error::NotUtf8 { offset: 9, .. })));
    }

    #[test]
    fn a_text_file_is_cut_without_loss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let source = Source { name: "a".into(), weight: None, kind: SourceKind::TextFile(path.clone()) };
        let paragraphs: String = (0..5000).map(|i| format!("  Line {i}\nof a páragraph.\n\n")).collect();
        let one_line = "wörd ".repeat(60_000);
        for (text, least) in [(paragraphs, 40), (one_line, 40), ("short".to_owned(), 1)] {
            fs::write(&path, &text).unwrap();
            let all = documents(&source).unwrap();
            assert!((least..=120).contains(&all.len()), "{}", all.len());
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&all.concat()), squeeze(&text));
        }
    }
}
