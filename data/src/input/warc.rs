//! WARC, the archive of a crawl (ISO 28500): records of named fields and a block, as Common Crawl publishes them.
//!
//! Taken are `response` and `resource` records that hold an HTML page or plain text, and `conversion` records (WET), which are text already. Requests, metadata and
//! the crawler's own notes are passed over, as are pages that the server did not send with status 200. Where a record does not begin as one, reading goes
//! on at the next line that begins with `WARC/`.

use super::lines::{Reader, Stop};
use super::{decode_html, parse};
use crate::record::Record;
use std::io::Read;

/// Longest header of a record, and most bytes of a block that are kept: larger ones are passed over.
const LONGEST_HEADER: usize = 64 << 10;
const LARGEST_BLOCK: u64 = 64 << 20;

/// One record of an archive.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Its named fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// What it holds.
    pub block: Vec<u8>,
}

/// A record with its offset, or why there is none and how the place begins.
type Found = (u64, Result<Entry, (String, Vec<u8>)>);

/// The next record. With `lost` it is looked for; else it must be there.
pub(super) fn next(reader: &mut Reader, lost: bool) -> Result<Option<Found>, Stop> {
    let (offset, version) = loop {
        let offset = reader.offset;
        let Some(line) = reader.line(LONGEST_HEADER)? else { return Ok(None) };
        if line.starts_with(b"WARC/") {
            break (offset, line);
        }
        let blank = line.iter().all(u8::is_ascii_whitespace);
        if !blank && !lost {
            return Ok(Some((offset, Err(("no WARC record begins here".to_owned(), line)))));
        }
    };
    let mut fields = Vec::new();
    let mut size = version.len();
    loop {
        let Some(line) = reader.line(LONGEST_HEADER)? else {
            return Ok(Some((offset, Err(("the file ends in the header of a record".to_owned(), version)))));
        };
        size += line.len();
        if size > LONGEST_HEADER {
            let reason = format!("the header of a record has over {LONGEST_HEADER} bytes");
            return Ok(Some((offset, Err((reason, version)))));
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(':') {
            // A line that begins with a space goes on with the field before it.
            _ if line.starts_with([' ', '\t']) => {
                if let Some((_, value)) = fields.last_mut() {
                    let value: &mut String = value;
                    value.push(' ');
                    value.push_str(line.trim());
                }
            }
            Some((name, value)) => fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            None => {
                let reason = "a line of a record's header has no colon".to_owned();
                return Ok(Some((offset, Err((reason, line.as_bytes().to_vec())))));
            }
        }
    }
    let mut entry = Entry { fields, block: Vec::new() };
    let length = entry.field("content-length").unwrap_or_default();
    let Ok(length) = length.parse::<u64>() else {
        let reason = format!("Content-Length is {length:?}, expected a number of bytes");
        return Ok(Some((offset, Err((reason, version)))));
    };
    if length > LARGEST_BLOCK {
        reader.skip(length)?;
        let reason = format!("Content-Length is {length}, over the {LARGEST_BLOCK} that are kept");
        return Ok(Some((offset, Err((reason, version)))));
    }
    entry.block = reader.take(length)?;
    if (entry.block.len() as u64) < length {
        let reason = format!("the file ends {} bytes into a block of {length}", entry.block.len());
        return Ok(Some((offset, Err((reason, version)))));
    }
    Ok(Some((offset, Ok(entry))))
}

impl Entry {
    fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// The document that it holds, if it holds one.
    pub(super) fn record(&self, name: impl FnOnce() -> String) -> Result<Option<Record>, String> {
        let uri = self.field("warc-target-uri").unwrap_or_default().trim_matches(['<', '>']);
        let (charset, kind, body);
        let http;
        match self.field("warc-type").unwrap_or_default() {
            "response" if self.field("content-type").is_none_or(|t| t.starts_with("application/http")) => {
                http = Http::parse(&self.block)?;
                if http.status != 200 {
                    return Ok(None);
                }
                (kind, charset) = media_type(find(&http.fields, "content-type").unwrap_or("text/html"));
                body = &http.body[..];
            }
            "resource" | "conversion" => {
                (kind, charset) = media_type(self.field("content-type").unwrap_or_default());
                body = &self.block;
            }
            _ => return Ok(None),
        }
        let html = matches!(kind.as_str(), "text/html" | "application/xhtml+xml");
        if !html && kind != "text/plain" {
            return Ok(None);
        }
        let text = decode_html(body, charset.as_deref());
        if text.trim().is_empty() {
            return Ok(None);
        }
        let id = self.field("warc-record-id").map(|id| id.trim_matches(['<', '>']).to_owned());
        let date = self.field("warc-date").unwrap_or_default();
        let known = [("url", uri), ("date", date)].into_iter().filter(|(_, value)| !value.is_empty());
        Ok(Some(Record { id: id.unwrap_or_else(name), text, html, meta: parse::meta(known) }))
    }
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// `text/html; charset=UTF-8` as its type and charset.
fn media_type(value: &str) -> (String, Option<String>) {
    let mut parts = value.split(';');
    let kind = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    });
    (kind, charset)
}

struct Http {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Http {
    fn parse(block: &[u8]) -> Result<Self, String> {
        let crlf = block.windows(4).position(|w| w == b"\r\n\r\n").map(|at| (at, at + 4));
        let lf = block.windows(2).position(|w| w == b"\n\n").map(|at| (at, at + 2));
        let ends = [crlf, lf].into_iter().flatten().min();
        let Some((head, body)) = ends else {
            return Err("the HTTP response has no end of its header".to_owned());
        };
        let header = String::from_utf8_lossy(&block[..head]);
        let mut lines = header.lines();
        let first = lines.next().unwrap_or_default();
        let status = first.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| first.starts_with("HTTP/")) else {
            return Err(format!("the HTTP response begins with {first:?}"));
        };
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut body = block[body..].to_vec();
        // Common Crawl stores bodies as they are after decoding; other crawlers store what came over the wire.
        if find(&fields, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
            && let Some(joined) = dechunk(&body)
        {
            body = joined;
        }
        if find(&fields, "content-encoding").is_some_and(|value| value.contains("gzip"))
            && body.starts_with(&[0x1f, 0x8b])
        {
            let mut plain = Vec::new();
            let limit = flate2::read::MultiGzDecoder::new(&body[..]).take(LARGEST_BLOCK);
            let mut limit = limit;
            limit.read_to_end(&mut plain).map_err(|error| format!("the body's gzip is damaged: {error}"))?;
            body = plain;
        }
        Ok(Http { status, fields, body })
    }
}

/// The joined chunks of a body; `None` if it is not in chunks.
fn dechunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let end = body.iter().position(|&byte| byte == b'\n')?;
        let size = std::str::from_utf8(&body[..end]).ok()?.trim();
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        body = &body[end + 1..];
        if size == 0 {
            return Some(joined);
        }
        joined.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?;
        body = body.strip_prefix(b"\r\n").or_else(|| body.strip_prefix(b"\n")).unwrap_or(body);
    }
}
