//! From the bytes of one record to the record; this runs on all threads.

use super::{InputFile, decode_html, lines, warc};
use crate::record::{Bad, Record};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The bytes of one record, not looked at yet.
#[derive(Debug, Clone)]
pub struct Raw {
    pub(super) file: Arc<InputFile>,
    /// Where it begins in the decompressed file.
    pub offset: u64,
    /// Its number in the file, counted from 1.
    pub number: u64,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Line(Vec<u8>),
    /// A whole text.
    Text(Vec<u8>),
    /// A piece of a text, known to be UTF-8.
    Piece(String),
    Html(Vec<u8>),
    Warc(warc::Entry),
    Bad {
        reason: String,
        sample: Vec<u8>,
    },
}

impl Raw {
    /// Bytes of input that it stands for.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Line(bytes) | Body::Text(bytes) | Body::Html(bytes) | Body::Bad { sample: bytes, .. } => {
                bytes.len()
            }
            Body::Piece(text) => text.len(),
            Body::Warc(entry) => entry.block.len(),
        }
    }

    /// The record; `None` for what is no record and no mistake either: an empty line, an empty text, a crawler's own notes.
    #[must_use]
    pub fn parse(self) -> Option<Result<Record, Bad>> {
        let Raw { file, offset, number, body } = self;
        let bad =
            |at: u64, reason: String, bytes: &[u8]| Some(Err(Bad::new(&file.display(), at, reason, bytes)));
        match body {
            Body::Bad { reason, sample } => bad(offset, reason, &sample),
            Body::Line(bytes) => {
                if bytes.len() > lines::LONGEST {
                    return bad(offset, format!("line {number} has over {} bytes", lines::LONGEST), &bytes);
                }
                let line = match std::str::from_utf8(&bytes) {
                    Ok(line) => line.strip_prefix('\u{feff}').unwrap_or(line).trim(),
                    Err(error) => {
                        let at = error.valid_up_to();
                        return bad(offset + at as u64, format!("line {number} is not UTF-8"), &bytes[at..]);
                    }
                };
                if line.is_empty() {
                    return None;
                }
                match Record::from_json(line, || format!("{}:{number}", file.name)) {
                    Ok(record) => Some(Ok(record)),
                    Err(reason) => bad(offset, format!("line {number}: {reason}"), &bytes),
                }
            }
            Body::Text(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text_record(file.name.clone(), &text),
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    bad(at as u64, "it is not UTF-8 text".to_owned(), &error.as_bytes()[at..])
                }
            },
            Body::Piece(text) => text_record(format!("{}#{number}", file.name), &text),
            Body::Html(bytes) => {
                let page = decode_html(&bytes, None);
                (!page.trim().is_empty())
                    .then(|| Ok(Record { id: file.name.clone(), text: page, html: true, meta: Map::new() }))
            }
            Body::Warc(entry) => match entry.record(|| format!("{}:{number}", file.name)) {
                Ok(record) => record.map(Ok),
                Err(reason) => bad(offset, reason, &entry.block),
            },
        }
    }
}

impl Raw {
    /// The object of a line of JSON, whatever its fields; `None` for an empty line.
    #[must_use]
    pub fn json(self) -> Option<Result<Value, Bad>> {
        let Body::Line(bytes) = &self.body else {
            return self.parse().map(|record| record.map(|record| Value::from(record.text)));
        };
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        Some(
            match serde_json::from_slice::<Value>(bytes) {
                Ok(value) if value.is_object() => Ok(value),
                Ok(_) => Err("it is not a JSON object".to_owned()),
                Err(error) => Err(error.to_string().replace(" at line 1 column", " at column")),
            }
            .map_err(|reason| {
                Bad::new(&self.file.display(), self.offset, format!("line {}: {reason}", self.number), bytes)
            }),
        )
    }
}

/// A text without its byte order mark and the empty lines around it.
fn trimmed(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end().trim_start_matches(['\n', '\r'])
}

fn text_record(id: String, text: &str) -> Option<Result<Record, Bad>> {
    let text = trimmed(text);
    (!text.is_empty()).then(|| Ok(Record::new(id, text)))
}

/// A meta of strings.
pub(super) fn meta<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}
