//! Files to records: one thread reads and cuts, all parse, the results come in order.

use super::lines::{LONGEST, Reader, Stop};
use super::parse::{Body, Raw};
use super::{Files, Format, InputFile, Place, warc};
use crate::Result;
use crate::record::{Bad, Record};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// Records and bytes that are handed to the threads at once. Memory is a few times [`BATCH_BYTES`], or of the largest record.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// Pieces that a lone text file is cut into, and the bounds of their size in bytes.
const PIECES: u64 = 100;
const SMALLEST_PIECE: u64 = 2 << 10;
const LARGEST_PIECE: u64 = 64 << 10;

/// A record's bytes, and how many bytes of the file on disk (about) it accounts for.
pub type Item = (Raw, u64);

impl Files {
    /// Give every record, in order, to `work` on all threads and what it makes of it to `take` on this one, until that breaks. `work` gets the record's ordinal: the
    /// number of lines, pages and pieces before it, read or not, the same whenever the same files are read.
    ///
    /// # Errors
    /// Those of `take`; [`Error::Io`](crate::Error::Io).
    pub fn stream<T: Send>(
        &self,
        work: impl Fn(u64, std::result::Result<Record, Bad>) -> T + Sync,
        take: &mut dyn FnMut(T, u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel::<Result<Vec<Item>>>(2);
            scope.spawn(move || {
                let mut batch = Vec::new();
                let mut bytes = 0;
                let mut give = |item: Option<Item>| {
                    let last = item.is_none();
                    if let Some(item) = item {
                        bytes += item.0.len();
                        batch.push(item);
                    }
                    if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES || last {
                        bytes = 0;
                        // The other side has gone: it met an error of its own.
                        return send.send(Ok(std::mem::take(&mut batch))).is_ok();
                    }
                    true
                };
                for file in &self.0 {
                    match read_items(file, &mut |item| give(Some(item))) {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            let _ = send.send(Err(error));
                            return;
                        }
                    }
                }
                give(None);
            });
            let mut ordinal = 0;
            for batch in receive {
                let batch = batch?;
                let count = batch.len() as u64;
                let done: Vec<(Option<T>, u64)> = batch
                    .into_par_iter()
                    .enumerate()
                    .map(|(i, (raw, read))| {
                        (raw.parse().map(|record| work(ordinal + i as u64, record)), read)
                    })
                    .collect();
                ordinal += count;
                let mut skipped = 0;
                for (result, read) in done {
                    skipped += read;
                    if let Some(result) = result
                        && take(result, std::mem::take(&mut skipped))?.is_break()
                    {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }
}

/// Cut a file into the bytes of its records; `sink` says whether to go on, and the result is its last word.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io). What the file's contents are is never an error: they give bad records.
pub fn read_items(file: &InputFile, sink: &mut dyn FnMut(Item) -> bool) -> Result<bool> {
    let shared = Arc::new(file.clone());
    let path = match &file.place {
        Place::Disk(path) => path.clone(),
        Place::Memory(documents) => {
            for (i, text) in documents.iter().enumerate() {
                let number = i as u64 + 1;
                let raw =
                    Raw { file: Arc::clone(&shared), offset: 0, number, body: Body::Piece(text.clone()) };
                if !sink((raw, text.len() as u64)) {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
    };
    let reader = Reader::open(file)?;
    let mut cutter = Cutter { file: shared, path, reader, number: 0, told: 0, sink, go_on: true };
    cutter.cut()?;
    Ok(cutter.go_on)
}

struct Cutter<'a> {
    file: Arc<InputFile>,
    path: PathBuf,
    reader: Reader,
    number: u64,
    /// Bytes of the file on disk that the sink has been told of.
    told: u64,
    sink: &'a mut dyn FnMut(Item) -> bool,
    go_on: bool,
}

impl Cutter<'_> {
    fn give(&mut self, offset: u64, body: Body) {
        self.number += 1;
        let raw = Raw { file: Arc::clone(&self.file), offset, number: self.number, body };
        // Of a compressed file the share is not known: it is told with the first record.
        let now = match self.file.compression {
            super::Compression::None => self.reader.offset.min(self.file.bytes),
            _ => self.file.bytes,
        };
        let read = now - self.told.min(now);
        self.told = now;
        self.go_on = (self.sink)((raw, read));
    }

    fn damaged(&mut self, stop: Stop) -> Result<()> {
        let offset = self.reader.offset;
        let reason = stop.reason(&self.path)?;
        self.give(offset, Body::Bad { reason, sample: Vec::new() });
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        match self.file.format {
            Format::Jsonl => self.lines(),
            Format::Text | Format::Html => self.whole(),
            Format::Pieces => self.pieces(),
            Format::Warc => self.warc(),
        }
    }

    fn lines(&mut self) -> Result<()> {
        while self.go_on {
            let offset = self.reader.offset;
            match self.reader.line(LONGEST) {
                Ok(Some(line)) => self.give(offset, Body::Line(line)),
                Ok(None) => return Ok(()),
                Err(stop) => return self.damaged(stop),
            }
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<()> {
        match self.reader.rest() {
            Ok(bytes) if bytes.len() > LONGEST => {
                let reason = format!("it has over {LONGEST} bytes");
                self.give(0, Body::Bad { reason, sample: bytes });
            }
            Ok(bytes) if self.file.format == Format::Html => self.give(0, Body::Html(bytes)),
            Ok(bytes) => self.give(0, Body::Text(bytes)),
            Err(stop) => return self.damaged(stop),
        }
        Ok(())
    }

    fn warc(&mut self) -> Result<()> {
        let mut lost = false;
        while self.go_on {
            match warc::next(&mut self.reader, lost) {
                Ok(Some((offset, Ok(entry)))) => {
                    lost = false;
                    self.give(offset, Body::Warc(entry));
                }
                Ok(Some((offset, Err((reason, sample))))) => {
                    lost = true;
                    self.give(offset, Body::Bad { reason, sample });
                }
                Ok(None) => return Ok(()),
                Err(stop) => return self.damaged(stop),
            }
        }
        Ok(())
    }

    /// Cut at the first empty line after the piece is long enough, or at any line or word once it is twice that.
    fn pieces(&mut self) -> Result<()> {
        let enough = (self.file.bytes / PIECES).clamp(SMALLEST_PIECE, LARGEST_PIECE) as usize;
        let (mut piece, mut start) = (String::new(), 0);
        while self.go_on {
            let offset = self.reader.offset;
            let line = match self.reader.line(LONGEST) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(stop) => {
                    self.give(start, Body::Piece(std::mem::take(&mut piece)));
                    return self.damaged(stop);
                }
            };
            let line = match String::from_utf8(line) {
                Ok(line) => line,
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    let sample = error.as_bytes()[at..].to_vec();
                    self.give(
                        offset + at as u64,
                        Body::Bad { reason: "it is not UTF-8 text".to_owned(), sample },
                    );
                    continue;
                }
            };
            let mut rest = line.as_str();
            while piece.len() + rest.len() > 3 * enough && self.go_on {
                let (head, tail) = rest.split_at(word_end(rest, (2 * enough).saturating_sub(piece.len())));
                piece.push_str(head);
                rest = tail;
                self.give(start, Body::Piece(std::mem::take(&mut piece)));
                start = self.reader.offset - rest.len() as u64;
            }
            piece.push_str(rest);
            if piece.len() >= 2 * enough || (piece.len() >= enough && rest.trim().is_empty()) {
                self.give(start, Body::Piece(std::mem::take(&mut piece)));
                start = self.reader.offset;
            }
        }
        if self.go_on {
            self.give(start, Body::Piece(piece));
        }
        Ok(())
    }
}

/// The end of the last word before `limit` bytes of `text`, or of the last character where that is one word.
fn word_end(text: &str, limit: usize) -> usize {
    let limit = (0..=limit.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or_default();
    match text[..limit].rfind(char::is_whitespace) {
        Some(space) => space + text[space..].chars().next().map_or(0, char::len_utf8),
        None => limit,
    }
}
