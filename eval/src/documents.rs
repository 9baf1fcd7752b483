//! Documents: what a task makes of a line of its file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::python::literal;
use crate::scorer::Request;
use crate::tasks::Task;
use crate::{Error, Result};

/// Between an example and what follows it.
pub const BETWEEN_EXAMPLES: &str = "\n\n";

/// A document, ready to be asked: one continuation, or one for each choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What stands before the continuations: one text for all, or one for each choice where the choice stands in the text.
    pub contexts: Vec<String>,
    /// The continuations, with the blank before them: one for each choice, or one for all.
    pub continuations: Vec<String>,
    /// Characters of each choice, without the blank: what acc_norm divides by.
    pub lengths: Vec<usize>,
    /// Index of the right choice.
    pub target: usize,
    /// The document with its answer, as an example before others.
    pub example: String,
    /// What it is counted with, where a task reports groups apart.
    pub group: Option<String>,
    /// A context to which each choice's probability is compared: P(choice | context) / P(choice | this).
    pub baseline: Option<&'static str>,
    /// The line itself: the sampler knows by it whether two documents are the same.
    pub source: Value,
}

impl Document {
    /// A question with choices behind it, each after a blank.
    pub(crate) fn choices(context: String, choices: &[&str], target: usize) -> Self {
        let example = format!("{context} {}{BETWEEN_EXAMPLES}", choices[target]);
        Self {
            contexts: vec![context],
            continuations: choices.iter().map(|choice| format!(" {choice}")).collect(),
            lengths: choices.iter().map(|choice| choice.chars().count()).collect(),
            target,
            example,
            group: None,
            baseline: None,
            source: Value::Null,
        }
    }

    /// Its requests behind `examples`: a choice each, then, with a baseline, the same choices behind the baseline.
    #[must_use]
    pub fn requests(&self, examples: &str) -> Vec<Request> {
        let count = self.contexts.len().max(self.continuations.len());
        let of = |texts: &[String], i: usize| texts[i.min(texts.len() - 1)].clone();
        let request = |i| Request {
            context: format!("{examples}{}", of(&self.contexts, i)),
            continuation: of(&self.continuations, i),
        };
        let mut requests: Vec<Request> = (0..count).map(request).collect();
        if let Some(baseline) = self.baseline {
            let alone = self.continuations.iter().cloned();
            requests.extend(alone.map(|continuation| Request { context: baseline.into(), continuation }));
        }
        requests
    }
}

/// A line of a file, as a task reads it. What is wrong with it is said as a reason; [`read`] adds the place.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a>(pub &'a Value);

/// Why a line cannot be read.
pub type Reason = String;

impl<'a> Row<'a> {
    /// A field, if it is there and not null.
    #[must_use]
    pub fn get(self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn need(self, field: &str) -> Result<&'a Value, Reason> {
        self.get(field).ok_or_else(|| format!("there is no field `{field}`"))
    }

    /// A field that is text.
    ///
    /// # Errors
    /// It is not there or not text.
    pub fn text(self, field: &str) -> Result<&'a str, Reason> {
        let value = self.need(field)?;
        value.as_str().ok_or_else(|| format!("field `{field}` is {}, expected text", short(value)))
    }

    /// A field that is a list of texts.
    ///
    /// # Errors
    /// It is not there or no such list.
    pub fn texts(self, field: &str) -> Result<Vec<&'a str>, Reason> {
        let value = self.need(field)?;
        let items = value.as_array().map(|items| items.iter().map(Value::as_str).collect());
        items
            .flatten()
            .ok_or_else(|| format!("field `{field}` is {}, expected a list of texts", short(value)))
    }

    /// A field that is a whole number, maybe written as text.
    ///
    /// # Errors
    /// It is not there or none.
    pub fn number(self, field: &str) -> Result<usize, Reason> {
        let value = self.need(field)?;
        let number = match value {
            Value::String(text) => text.parse().ok(),
            _ => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        number.ok_or_else(|| format!("field `{field}` is {}, expected a whole number from 0", short(value)))
    }

    /// A field that is the number of one of `count` choices; a truth value is 1 or 0.
    ///
    /// # Errors
    /// It is not there or none of them.
    pub fn label(self, field: &str, count: usize) -> Result<usize, Reason> {
        let label = match self.need(field)? {
            Value::Bool(truth) => usize::from(*truth),
            _ => self.number(field)?,
        };
        if label < count {
            return Ok(label);
        }
        Err(format!("field `{field}` is {label}, expected 0 to {}", count - 1))
    }

    /// A field that is a list, or a Python literal of one.
    ///
    /// # Errors
    /// It is not there, or no list.
    pub fn list(self, field: &str) -> Result<Vec<Value>, Reason> {
        let value = self.need(field)?;
        let read = match value {
            Value::String(text) => {
                literal::parse(text).map_err(|error| format!("field `{field}`: {error}"))?
            }
            _ => value.clone(),
        };
        match read {
            Value::Array(items) => Ok(items),
            other => Err(format!("field `{field}` is {}, expected a list", short(&other))),
        }
    }
}

/// A value as a message can hold it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The documents of one file.
#[derive(Clone, Debug)]
pub struct Set {
    /// The file.
    pub path: PathBuf,
    /// BLAKE3 of its bytes, in hexadecimal digits.
    pub hash: String,
    /// Its documents, in its order.
    pub documents: Vec<Document>,
}

/// Reads a task's file: all of it, or an error with the line.
///
/// # Errors
/// A file that cannot be read, a line that is no JSON object or not the task's, no document at all.
pub fn read(task: &'static Task, path: &Path) -> Result<Set> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hash = blake3::Hasher::new();
    let mut documents = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(Error::io("read", path))? == 0 {
            break;
        }
        hash.update(&bytes);
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |reason| Error::Document {
            path: path.into(),
            line,
            reason,
            task: task.name,
            fields: task.fields,
        };
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| wrong(format!("no JSON: {error}")))?;
        if !value.is_object() {
            return Err(wrong(format!("{} is no JSON object", short(&value))));
        }
        for mut document in (task.read)(Row(&value)).map_err(wrong)? {
            document.source = value.clone();
            documents.push(document);
        }
    }
    if documents.is_empty() {
        return Err(Error::Empty { path: path.into() });
    }
    Ok(Set { path: path.into(), hash: hash.finalize().to_hex().to_string(), documents })
}
