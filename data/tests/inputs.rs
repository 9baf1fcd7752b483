//! Inputs of every kind, and a corpus of broken ones: each mistake is a record in quarantine that names its file and offset, and what else the file holds is read.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::input::{Source, SourceKind};
use data::record::{Bad, Record};
use data::tokenizer::Tokenizer;
use data::{Error, Result};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn read(source: &Source) -> Result<(Vec<Record>, Vec<Bad>)> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    source.files()?.stream(|_, record| record, &mut |record: std::result::Result<Record, Bad>, _| {
        match record {
            Ok(record) => good.push(record),
            Err(error) => bad.push(error),
        }
        Ok(Continue(()))
    })?;
    Ok((good, bad))
}

fn at(path: &Path) -> Source {
    Source::parse(&path.display().to_string()).unwrap()
}

/// What a file of this name and these bytes gives.
fn file(name: &str, bytes: &[u8]) -> (Vec<Record>, Vec<Bad>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let (good, bad) = read(&at(&path)).unwrap();
    assert!(bad.iter().all(|bad| bad.file.ends_with(name)), "{bad:?}");
    (good, bad)
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.text.as_str()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LINES: &[u8] = b"\xef\xbb\xbf{\"text\":\"one\",\"id\":\"a\"}\n\n{\"text\":\"two\",\"url\":\"u\"}";

#[test]
fn arguments() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("a.txt", "alpha"), ("b.jsonl.gz", ""), ("c=d.txt", "x")] {
        fs::write(at(name), text).unwrap();
    }
    let source = Source::parse(&format!("0.25={}", at("a.txt"))).unwrap();
    assert_eq!((source.name.as_str(), source.weight), ("a", Some(0.25)));
    assert_eq!(texts(&read(&source).unwrap().0), ["alpha"]);
    assert_eq!(Source::parse(&at("b.jsonl.gz")).unwrap().name, "b");
    let equals = Source::parse(&at("c=d.txt")).unwrap();
    assert_eq!((equals.name.as_str(), equals.weight), ("c=d", None));
    assert!(matches!(Source::parse(&at("")).unwrap().kind, SourceKind::Folder(_)));
    for wrong in ["0", "-1", "nan", "inf", "x", ""] {
        let error = Source::parse(&format!("{wrong}={}", at("a.txt"))).unwrap_err();
        assert!(matches!(&error, Error::InvalidWeight { value, .. } if value == wrong), "{error}");
    }
    assert!(matches!(Source::parse(&at("none.txt")), Err(Error::MissingPath { .. })));
    assert!(matches!(Source::parse(&format!("1={}", at("none"))), Err(Error::MissingPath { .. })));
}

#[test]
fn prefixes_of_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("set.v1");
    data::indexed::Writer::create(&prefix, data::indexed::TokenType::U16).unwrap().finish().unwrap();
    for argument in [prefix.clone(), data::indexed::bin_path(&prefix), data::indexed::idx_path(&prefix)] {
        let source = at(&argument);
        assert!(matches!(&source.kind, SourceKind::Tokens(found) if *found == prefix), "{source:?}");
        assert_eq!(source.name, "set.v1");
    }
}

#[test]
fn lines_plain_and_compressed() {
    for (name, bytes) in [
        ("a.jsonl", LINES.to_vec()),
        ("a.jsonl.gz", gzip(LINES)),
        ("a.ndjson.zst", zstd(LINES)),
        // Members and frames one behind another.
        ("b.jsonl.gz", [gzip(&LINES[..20]), gzip(&LINES[20..])].concat()),
        ("b.jsonl.zst", [zstd(&LINES[..20]), zstd(&LINES[20..])].concat()),
    ] {
        let (good, bad) = file(name, &bytes);
        assert_eq!((texts(&good), bad), (vec!["one", "two"], vec![]), "{name}");
        assert_eq!((good[0].id.as_str(), good[1].id.as_str()), ("a", format!("{name}:3").as_str()));
        assert_eq!(good[1].meta["url"], "u");
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
    write("a/y.HTML", b"<body>p\xe9</body>");
    write("c.jsonl", b"{\"text\":\"one\"}\n\n{\"id\":3,\"text\":\"two\"}\n");
    write("empty.txt", b" \n");
    write("image.png", b"\x89PNG");
    write(".hidden/x.txt", b"hidden");
    write("target/x.txt", b"built");
    write("d.txt.gz", &gzip(b"packed"));
    let (good, bad) = read(&at(folder.path())).unwrap();
    assert_eq!(texts(&good), ["<body>p\u{e9}</body>", "fn z() {}", "# b", "one", "two", "packed"]);
    assert!(good[0].html && !good[1].html && bad.is_empty());
    assert_eq!(good[1].id, "a/z.rs");
    write("e.txt", b"ab\xffc");
    let (_, bad) = read(&at(folder.path())).unwrap();
    assert_eq!((bad[0].offset, bad[0].reason.as_str()), (2, "it is not UTF-8 text"));
}

#[test]
fn a_text_file_is_cut_without_loss() {
    let paragraphs: String = (0..5000).map(|i| format!("  Line {i}\nof a p\u{e1}ragraph.\n\n")).collect();
    let one_line = "w\u{f6}rd ".repeat(60_000);
    for (text, least) in [(paragraphs, 40), (one_line, 40), ("short".to_owned(), 1)] {
        for (name, bytes) in [("a.txt", text.clone().into_bytes()), ("a.txt.gz", gzip(text.as_bytes()))] {
            let (all, bad) = file(name, &bytes);
            // Of a compressed file the size is not known: its pieces are as small as may be.
            assert!(all.len() >= least && (name.ends_with(".gz") || all.len() <= 120), "{}", all.len());
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&texts(&all).concat()), squeeze(&text));
            assert!(bad.is_empty());
        }
    }
}

fn warc(fields: &str, block: &[u8]) -> Vec<u8> {
    let head = format!("WARC/1.0\r\n{fields}\r\nContent-Length: {}\r\n\r\n", block.len());
    [head.as_bytes(), block, b"\r\n\r\n"].concat()
}

fn page(text: &str) -> Vec<u8> {
    let http = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>{text}</p>");
    warc(
        "WARC-Type: response\r\nWARC-Record-ID: <urn:1>\r\nWARC-Target-URI: http://a.b/\r\nContent-Type: application/http; msgtype=response",
        http.as_bytes(),
    )
}

#[test]
fn archives() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html; charset=koi8-r\r\n\r\n\
        4\r\n<p>\xd4\r\n5;x=y\r\n</p>\n\r\n0\r\n\r\n";
    let packed =
        [&b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"[..], &gzip(b"<p>packed</p>")].concat();
    let response = "WARC-Type: response\r\nContent-Type: application/http;msgtype=response";
    let members = [
        warc("WARC-Type: warcinfo\r\nContent-Type: application/warc-fields", b"software: x"),
        page("one"),
        warc("WARC-Type: request\r\nContent-Type: application/http", b"GET / HTTP/1.1\r\n\r\n"),
        warc(response, b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>gone"),
        warc(response, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"),
        warc(response, chunked),
        warc(response, &packed),
        warc(
            "WARC-Type: conversion\r\nContent-Type: text/plain\r\nWARC-Target-URI: u",
            "t\u{e9}xt".as_bytes(),
        ),
    ];
    let packed: Vec<u8> = members.iter().flat_map(|member| gzip(member)).collect();
    for (name, bytes) in [("a.warc", members.concat()), ("a.warc.gz", packed)] {
        let (good, bad) = file(name, &bytes);
        assert_eq!(texts(&good), ["<p>one</p>", "<p>\u{442}</p>\n", "<p>packed</p>", "t\u{e9}xt"]);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!((good[0].id.as_str(), &good[0].meta["url"]), ("urn:1", &"http://a.b/".into()));
        assert!(good[0].html && !good[3].html);
    }
}

#[test]
fn broken_archives() {
    let (one, two) = (page("one"), page("two"));
    let huge = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 99999999999999\r\n\r\n".to_vec();
    let no_length = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: many\r\n\r\nx\r\n\r\n".to_vec();
    let long_header = [&b"WARC/1.0\r\n"[..], &b"a: ".repeat(40_000), b"\r\n\r\n"].concat();
    let no_http = warc("WARC-Type: response\r\nContent-Type: application/http", b"GARBAGE");
    let bad_gzip = warc(
        "WARC-Type: response\r\nContent-Type: application/http",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08garbage",
    );
    let at = one.len() as u64;
    for (broken, reason, goes_on) in [
        (b"no archive\n at all\n".to_vec(), "no WARC record begins here", true),
        (huge, "Content-Length is 99999999999999", false),
        (no_length, "Content-Length is \"many\"", true),
        (long_header, "the header of a record has over", true),
        (no_http, "the HTTP response has no end", true),
        (bad_gzip, "the body's gzip is damaged", true),
        (b"WARC/1.0\r\nno colon\r\n\r\n".to_vec(), "no colon", true),
        (b"WARC/1.0\r\nWARC-Type: x".to_vec(), "the file ends in the header", false),
        (two[..two.len() - 20].to_vec(), "the file ends", false),
    ] {
        let last = if goes_on { two.clone() } else { Vec::new() };
        let (good, bad) = file("a.warc", &[one.clone(), broken, last].concat());
        let expected: &[&str] = if goes_on { &["<p>one</p>", "<p>two</p>"] } else { &["<p>one</p>"] };
        assert_eq!(texts(&good), expected, "{reason}");
        assert_eq!(bad.len(), 1, "{reason}: {bad:?}");
        assert!(bad[0].reason.contains(reason) && bad[0].offset == at, "{reason}: {:?}", bad[0]);
    }
}

#[test]
fn broken_lines() {
    let deep = format!("{{\"text\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for broken in [
        "[\"text\"]",
        "{\"text\": 3}",
        "{\"body\": \"x\"}",
        "not json",
        "{\"text\": \"x\"",
        "{\"text\":\"\\ud800\"}",
        "{\"text\":\"x\"}{\"text\":\"y\"}",
        deep.as_str(),
        "\u{0}",
    ] {
        let (good, bad) =
            file("a.jsonl", format!("{{\"text\":\"good\"}}\n{broken}\n{{\"text\":\"more\"}}\n").as_bytes());
        assert_eq!(texts(&good), ["good", "more"], "{broken:.40}");
        assert!(bad.len() == 1 && bad[0].offset == 16 && bad[0].reason.contains("line 2"), "{bad:?}");
    }
    let (good, bad) = file("a.jsonl", b"{\"text\":\"good\"}\n{\"text\":\"\xff\"}\n");
    assert_eq!((good.len(), bad[0].offset), (1, 16 + 9));
}

#[test]
fn broken_compression() {
    let many: Vec<u8> =
        (0..20_000).flat_map(|i| format!("{{\"text\":\"line {i}\"}}\n").into_bytes()).collect();
    for (name, whole) in [("a.jsonl.gz", gzip(&many)), ("a.jsonl.zst", zstd(&many))] {
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle..middle + 40].fill(0xff);
        for (what, bytes) in [
            ("cut", whole[..whole.len() / 2].to_vec()),
            ("flipped", flipped),
            ("wrong magic", b"no archive at all".to_vec()),
            ("garbage behind", [&whole[..], b"garbage"].concat()),
        ] {
            let (good, bad) = file(name, &bytes);
            assert!(!bad.is_empty(), "{name} {what}: nothing is bad");
            let last = bad.last().unwrap();
            assert!(
                last.reason.contains("damaged") || last.reason.contains("line"),
                "{name} {what}: {last:?}"
            );
            assert!(last.offset <= many.len() as u64);
            assert!(what != "garbage behind" || good.len() == 20_000, "{name} {what}: {}", good.len());
        }
    }
}

/// What the fuzz targets do, briefly and the same each time: bytes of sound files changed, cut and doubled. Nothing panics, and offsets are of the file.
#[test]
fn mutated_files() {
    let mut random = data::mt19937::RandomState::new(2026);
    let page =
        b"<html lang=en><head><meta charset=koi8-r></head><main><p>a &amp; b<pre>\n x</pre><table><td>1"
            .to_vec();
    let text = "A line.\n\nAnother, caf\u{e9}.\n".repeat(300).into_bytes();
    let archive = [self::page("one"), self::page("two")].concat();
    let seeds = [
        ("a.jsonl", LINES.to_vec()),
        ("a.jsonl.gz", gzip(LINES)),
        ("a.jsonl.zst", zstd(LINES)),
        ("a.warc.gz", gzip(&archive)),
        ("a.warc", archive),
        ("a.html", page),
        ("a.txt", text),
    ];
    for (name, seed) in seeds {
        for _ in 0..60 {
            let mut bytes = seed.clone();
            for _ in 0..=random.interval(4) {
                let at = random.interval(bytes.len() as u32 - 1) as usize;
                match random.interval(3) {
                    0 => bytes[at] ^= 1 << random.interval(7),
                    1 => bytes.truncate(at + 1),
                    2 => bytes[at] = random.next_u32() as u8,
                    _ => bytes.extend_from_within(at..),
                }
            }
            let (good, bad) = file(name, &bytes);
            let plain = !name.ends_with("gz") && !name.ends_with("zst");
            assert!(!plain || bad.iter().all(|bad| bad.offset <= bytes.len() as u64), "{bad:?}");
            for record in good.iter().filter(|record| record.html) {
                let _ = (data::html::text(&record.text), data::extract::justext::text(&record.text));
            }
            for record in good {
                let _ = data::clean::repair::repair(&record.text);
            }
        }
    }
}

#[test]
fn broken_tokenizers() {
    for broken in [
        &b""[..],
        b"{}",
        b"null",
        b"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"zz\"]]}}",
        b"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4294967295},\"merges\":[]}}",
        b"\xff\xfe",
    ] {
        let error = Tokenizer::from_json(broken, "broken.json").unwrap_err();
        assert!(error.is_user() && error.to_string().contains("broken.json"), "{error}");
    }
}
