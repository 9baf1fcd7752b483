//! A document on its way through the pipeline: its text, a name that lasts, and what else is known of it.
//!
//! Between the steps records lie in JSON lines, compressed with zstd: `{"id":…,"text":…,"meta":{…}}`. Keys are in the order of their names, so that the same
//! record is the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Its name: the record's own `id`, else its file and place. Pieces of a document append `/1`, `/2`, ….
    pub id: String,
    /// Its text; the page itself while [`Record::html`] holds.
    pub text: String,
    /// Whether the text is HTML of which nothing has been extracted yet.
    #[serde(skip_serializing_if = "is_false")]
    pub html: bool,
    /// Whatever else its source said of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Record {
    /// A record of plain text.
    #[must_use]
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Record { id: id.into(), text: text.into(), html: false, meta: Map::new() }
    }

    /// Read a line of JSON. A record without an `id` is named by `name`; fields other than `id`, `text`, `html` and `meta` become part of the meta.
    ///
    /// # Errors
    /// The reason, in words, for a line that is no JSON object with a string `text`.
    pub fn from_json(line: &str, name: impl FnOnce() -> String) -> Result<Self, String> {
        let mut fields: Map<String, Value> = match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err("it is not a JSON object".to_owned()),
            // The library counts lines in the string that it was given, which is one.
            Err(error) => return Err(error.to_string().replace(" at line 1 column", " at column")),
        };
        let text = match fields.remove("text") {
            Some(Value::String(text)) => text,
            Some(_) => return Err("its field \"text\" is not a string".to_owned()),
            None => return Err("it has no field \"text\"".to_owned()),
        };
        let id = match fields.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(id @ Value::Number(_)) => id.to_string(),
            _ => name(),
        };
        let html = fields.remove("html") == Some(Value::Bool(true));
        let mut meta = match fields.remove("meta") {
            Some(Value::Object(meta)) => meta,
            Some(other) => Map::from_iter([("meta".to_owned(), other)]),
            None => Map::new(),
        };
        meta.extend(fields);
        Ok(Record { id, text, html, meta })
    }

    /// The record as one line of JSON, its newline included.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a record of strings and JSON values is JSON");
        line.push(b'\n');
        line
    }
}

/// A record that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Its file.
    pub file: String,
    /// Where it begins, in bytes of the file's decompressed contents.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
    /// How it begins.
    pub sample: String,
}

/// Bytes of a bad record that are kept.
const SAMPLE: usize = 200;

impl Bad {
    pub(crate) fn new(file: &str, offset: u64, reason: impl Into<String>, bytes: &[u8]) -> Self {
        let sample = String::from_utf8_lossy(&bytes[..bytes.len().min(SAMPLE)]).into_owned();
        Bad { file: file.to_owned(), offset, reason: reason.into(), sample }
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: at offset {}: {}", self.file, self.offset, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_there_and_back() {
        let line = r#"{"text":"a\nb","id":7,"url":"u","meta":{"lang":"en"}}"#;
        let record = Record::from_json(line, || unreachable!()).unwrap();
        assert_eq!((record.id.as_str(), record.text.as_str()), ("7", "a\nb"));
        let json = String::from_utf8(record.to_json()).unwrap();
        assert_eq!(json, "{\"id\":\"7\",\"text\":\"a\\nb\",\"meta\":{\"lang\":\"en\",\"url\":\"u\"}}\n");
        assert_eq!(Record::from_json(&json, || unreachable!()).unwrap(), record);
        assert_eq!(Record::from_json("{\"text\":\"\"}", || "n:1".into()).unwrap(), Record::new("n:1", ""));
    }

    #[test]
    fn lines_that_are_no_record() {
        for bad in [
            "",
            "[\"x\"]",
            "{\"text\":3}",
            "{\"id\":\"x\"}",
            "{\"text\":\"x\"",
            "{\"text\":\"\\ud800\"}",
            "null",
            "{\"text\":\"x\"} x",
        ] {
            assert!(Record::from_json(bad, || "n".into()).is_err(), "{bad}");
        }
    }
}
