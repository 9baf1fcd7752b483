//! Files to documents.

use super::{Sink, SourceFile, walk};
use crate::{Error, Result, html};
use rayon::prelude::*;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow::{self, Break, Continue};
use std::path::Path;

/// Files read at a time, each on a thread.
const BATCH: usize = 64;
/// Pieces that a lone text file is cut into, and the bounds of their size in bytes.
const PIECES: u64 = 100;
const SMALLEST_PIECE: u64 = 2 << 10;
const LARGEST_PIECE: u64 = 64 << 10;

/// Which HTML pages are documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// All of them.
    Any,
    /// Those in English that mark their main content.
    EnglishMain,
}

/// Each file a document, but each line of a `.jsonl`.
pub(super) fn files(files: &[SourceFile], page: Page, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    for run in files.chunk_by(|a, b| is_jsonl(&a.path) == is_jsonl(&b.path)) {
        if is_jsonl(&run[0].path) {
            for file in run {
                if jsonl(&file.path, sink)?.is_break() {
                    return Ok(Break(()));
                }
            }
            continue;
        }
        for batch in run.chunks(BATCH) {
            let texts: Vec<Result<String>> =
                batch.par_iter().map(|file| document(&file.path, page)).collect();
            for (text, file) in texts.into_iter().zip(batch) {
                if give(&text?, file.bytes, sink)?.is_break() {
                    return Ok(Break(()));
                }
            }
        }
    }
    Ok(Continue(()))
}

pub(super) fn memory(documents: &[String], sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    for document in documents {
        if give(document, document.len() as u64, sink)?.is_break() {
            return Ok(Break(()));
        }
    }
    Ok(Continue(()))
}

fn is_jsonl(path: &Path) -> bool {
    walk::extension(path) == "jsonl"
}

fn document(path: &Path, page: Page) -> Result<String> {
    let text = utf8(fs::read(path).map_err(Error::io("read", path))?, path, 0)?;
    if !walk::is_html(path) {
        return Ok(text);
    }
    let parsed = html::parse(&text);
    let english = parsed.lang.as_deref().is_none_or(|lang| lang == "en" || lang.starts_with("en-"));
    let wanted = page == Page::Any || (parsed.has_main && english);
    Ok(if wanted { parsed.text } else { String::new() })
}

/// Hand on a text without its byte order mark and the empty lines around it, unless nothing is left.
fn give(text: &str, read: u64, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end().trim_start_matches(['\n', '\r']);
    if text.is_empty() { Ok(Continue(())) } else { sink(text.to_owned(), read) }
}

fn utf8(bytes: Vec<u8>, path: &Path, offset: u64) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::NotUtf8 {
        path: path.to_owned(),
        offset: offset + error.utf8_error().valid_up_to() as u64,
    })
}

/// The lines of a file, with the offset of each.
fn lines(
    path: &Path,
    mut line: impl FnMut(String, u64) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io("read", path))?);
    let mut offset = 0;
    loop {
        let mut bytes = Vec::new();
        let count = reader.read_until(b'\n', &mut bytes).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok(Continue(()));
        }
        if line(utf8(bytes, path, offset)?, count as u64)?.is_break() {
            return Ok(Break(()));
        }
        offset += count as u64;
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// The field `text` of every line that is not empty.
pub(super) fn jsonl(path: &Path, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let mut number = 0;
    lines(path, |line, read| {
        number += 1;
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.trim().is_empty() {
            return Ok(Continue(()));
        }
        let error = |reason| Error::Jsonl { path: path.to_owned(), line: number, reason };
        // An array would fill the fields of a struct in their order.
        if !line.trim_start().starts_with('{') {
            return Err(error("it is not a JSON object".to_owned()));
        }
        let parsed: Line<'_> = serde_json::from_str(line)
            // The library counts lines in the string that it was given, which is one.
            .map_err(|source| error(source.to_string().replace(" at line 1 column", " at column")))?;
        give(&parsed.text, read, sink)
    })
}

/// The pieces of a lone text file: cut at the first empty line after the piece is long enough, or at any line or word once it is twice that.
pub(super) fn cut_file(path: &Path, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    let enough = (bytes / PIECES).clamp(SMALLEST_PIECE, LARGEST_PIECE) as usize;
    let (mut piece, mut read) = (String::new(), 0);
    let flow = lines(path, |line, count| {
        read += count;
        let mut rest = line.as_str();
        while piece.len() + rest.len() > 3 * enough {
            let (head, tail) = rest.split_at(word_end(rest, (2 * enough).saturating_sub(piece.len())));
            piece.push_str(head);
            rest = tail;
            if give(&piece, std::mem::take(&mut read), sink)?.is_break() {
                return Ok(Break(()));
            }
            piece.clear();
        }
        piece.push_str(rest);
        if piece.len() >= 2 * enough || (piece.len() >= enough && rest.trim().is_empty()) {
            let flow = give(&piece, std::mem::take(&mut read), sink)?;
            piece.clear();
            return Ok(flow);
        }
        Ok(Continue(()))
    })?;
    if flow.is_break() { Ok(flow) } else { give(&piece, read, sink) }
}

/// The end of the last word before `limit` bytes of `text`, or of the last character where that is one word.
fn word_end(text: &str, limit: usize) -> usize {
    let limit = (0..=limit.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or_default();
    match text[..limit].rfind(char::is_whitespace) {
        Some(space) => space + text[space..].chars().next().map_or(0, char::len_utf8),
        None => limit,
    }
}
