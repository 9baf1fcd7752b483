//! Documents to tokens to files.

use super::documents::unique;
use super::{Progress, SetRecord, Stage};
use crate::Result;
use crate::indexed::{TokenType, Writer};
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use rayon::prelude::*;
use std::ops::ControlFlow::Continue;
use std::path::Path;

/// Text encoded at a time, each document on a thread.
const BATCH_BYTES: usize = 4 << 20;

/// The pair that is being written, and the documents that wait to be encoded.
struct Open<'a> {
    tokenizer: &'a Tokenizer,
    writer: Writer,
    record: SetRecord,
    waiting: Vec<String>,
    waiting_bytes: usize,
}

impl Open<'_> {
    fn flush(&mut self) -> Result<()> {
        let encoded: Vec<Result<Vec<u32>>> = self
            .waiting
            .par_iter()
            .map(|text| {
                let mut tokens = self.tokenizer.encode(text)?;
                tokens.push(self.tokenizer.eod());
                Ok(tokens)
            })
            .collect();
        for tokens in encoded {
            let tokens = tokens?;
            self.writer.document(&tokens)?;
            self.record.tokens += tokens.len() as u64;
        }
        self.record.documents += self.waiting.len() as u64;
        self.record.bytes += self.waiting_bytes as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<SetRecord> {
        self.flush()?;
        self.writer.finish()?;
        Ok(self.record)
    }
}

/// Encode every source into a pair of its own in `folder`.
pub(super) fn encode(
    sources: &[&Source],
    tokenizer: &Tokenizer,
    token_type: TokenType,
    folder: &Path,
    total: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<SetRecord>> {
    let mut records = Vec::new();
    let mut open: Option<Open<'_>> = None;
    let mut done = 0;
    let counts = unique(sources, &mut |set, text, read| {
        if records.len() + usize::from(open.is_some()) <= set {
            if let Some(before) = open.take() {
                records.push(before.finish()?);
            }
            let name = &sources[set].name;
            let file = format!("{set:02}-{}", file_name(name));
            let writer = Writer::create(&folder.join(&file), token_type)?;
            let record = SetRecord { name: name.clone(), file, ..SetRecord::default() };
            open = Some(Open { tokenizer, writer, record, waiting: Vec::new(), waiting_bytes: 0 });
        }
        let current = open.as_mut().expect("a pair was just opened");
        current.waiting_bytes += text.len();
        current.waiting.push(text);
        done += read;
        if current.waiting_bytes >= BATCH_BYTES {
            current.flush()?;
            progress(Progress { stage: Stage::Encode, done: done.min(total), total });
        }
        Ok(Continue(()))
    })?;
    if let Some(last) = open {
        records.push(last.finish()?);
    }
    for (record, count) in records.iter_mut().zip(counts) {
        record.duplicates = count.duplicates;
    }
    progress(Progress { stage: Stage::Encode, done: total, total });
    Ok(records)
}

/// The name of a set as a name of a file: letters, digits, `-`, `_` and `.` as they are.
fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(keep).take(64).collect()
}
