//! Files of every format and compression: whatever the bytes are, each record is read or is bad, and no offset is past the end of the file.

#![no_main]

use data::input::{InputFile, read_items};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 9] =
    ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.warc", "a.warc.gz", "a.html", "a.html.gz", "a.txt", "a.txt.zst"];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(NAMES[usize::from(first) % NAMES.len()]);
    std::fs::write(&path, rest).expect("a file in a temporary folder");
    let file = InputFile::single(&path).expect("a file that was just written");
    let plain = !matches!(path.extension().and_then(|e| e.to_str()), Some("gz" | "zst"));
    read_items(&file, &mut |(raw, _)| {
        assert!(!plain || raw.offset <= rest.len() as u64, "offsets are of the file");
        let _ = raw.parse();
        true
    })
    .expect("what a file holds is never an error");
});
