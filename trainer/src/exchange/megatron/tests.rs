//! Files that are broken anywhere: an answer, never a panic, and never more memory than the file has bytes for.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::super::stored_zip::StoredZip;
use super::*;

/// A copy of the smallest fixture, and its one file.
fn copied(dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/megatron/v1/release/mp_rank_00/model_optim_rng.pt");
    let to = dir.join("mp_rank_00");
    std::fs::create_dir(&to).unwrap();
    std::fs::copy(from, to.join("model_optim_rng.pt")).unwrap();
    to.join("model_optim_rng.pt")
}

/// Opens the checkpoint and reads all of it.
fn read_all(dir: &Path) -> Result<usize> {
    let mut theirs = find(dir)?.ok_or_else(|| Error::other("none"))?;
    theirs.set_tokens(301, "of the test")?;
    theirs.check()?;
    let mut values = 0;
    for (group, list) in theirs.groups().iter().enumerate() {
        for index in 0..list.len() {
            values += theirs.read(group, index)?.len();
        }
    }
    Ok(values)
}

#[test]
fn cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = copied(dir.path());
    let values = read_all(dir.path()).unwrap();
    assert_eq!(values as u64, find(dir.path()).unwrap().unwrap().model.parameters() + (384 - 304) * 24);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let whole = file.metadata().unwrap().len();
    // At every byte of the directory and what is behind it, and of the weights at some.
    for len in (0..whole).rev().filter(|len| len + 1_000 > whole || len % 97 == 0) {
        file.set_len(len).unwrap();
        let error = read_all(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{len}: {error}");
    }
}

/// Everything but the weights themselves, whose checksum `megatron.rs` among the integration tests is about.
#[test]
fn changed_at_every_byte_around_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = copied(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let zip = StoredZip::open(&path).unwrap();
    let weights = "model_optim_rng/data/0";
    let start = zip.start_of(weights).unwrap() as usize;
    let end = start + zip.len_of(weights).unwrap() as usize;
    let mut refused = 0;
    for at in (0..start).chain(end..whole.len()) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, changed).unwrap();
        if let Err(error) = read_all(dir.path()) {
            assert_eq!(error.exit_code(), 2, "{at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 4000, "{refused}");
}

/// The pickle is changed where its checksum fits: what it says is what is wrong.
#[test]
fn a_pickle_that_says_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = copied(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let zip = StoredZip::open(&path).unwrap();
    let name = "model_optim_rng/data.pkl";
    let (start, len) = (zip.start_of(name).unwrap() as usize, zip.len_of(name).unwrap() as usize);
    let header = whole.windows(name.len()).rposition(|window| window == name.as_bytes()).unwrap() - 46;
    let (mut refused, mut read) = (0, 0);
    for at in start..start + len {
        for change in [1 << (at % 8), 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            let crc = crc32fast::hash(&changed[start..start + len]).to_le_bytes();
            changed[header + 16..header + 20].copy_from_slice(&crc);
            std::fs::write(&path, changed).unwrap();
            match read_all(dir.path()) {
                Ok(_) => read += 1,
                Err(error) => {
                    assert_eq!(error.exit_code(), 2, "{at}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn lengths_that_no_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = copied(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let end = whole.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap();
    let directory = whole.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let wide = whole.windows(4).rposition(|window| window == b"PK\x06\x06").unwrap();
    for (at, bytes, is_read) in [
        // What has all bits set is said by ZIP64's record, which torch.save always writes; the entries of this disk are not looked at.
        (end + 8, &[0xff; 2][..], true),
        (end + 10, &[0xff; 2], true),
        (end + 16, &[0xff; 4], true),
        (end + 10, &[0xff, 0xfe], false),
        (end + 12, &[0xfe, 0xff, 0xff, 0xff], false),
        (end + 20, &[1, 0], false),
        (directory + 20, &[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff], false),
        (directory + 20, &[0xff; 8], false),
        (directory + 28, &[0xff; 4], false),
        (directory + 42, &[0xfe, 0xff, 0xff, 0xff], false),
    ] {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, changed).unwrap();
        match read_all(dir.path()) {
            Ok(_) => assert!(is_read, "{at}"),
            Err(error) => assert!(!is_read && error.exit_code() == 2, "{at}: {error}"),
        }
    }
    // The record's own lengths.
    for at in [wide + 32, wide + 40, wide + 48] {
        let mut changed = whole.clone();
        changed[end + 10..end + 12].fill(0xff);
        changed[at..at + 8].fill(0xff);
        std::fs::write(&path, changed).unwrap();
        assert_eq!(read_all(dir.path()).unwrap_err().exit_code(), 2, "{at}");
    }
}
