//! `.bin/.idx` pairs: what goes in comes out, and no damage makes the reader panic or lie about where it is.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::Error;
use data::indexed::{IndexedDataset, TokenType, Writer, bin_path, idx_path};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn write(prefix: &Path, token_type: TokenType, documents: &[Vec<u32>]) {
    let mut writer = Writer::create(prefix, token_type).unwrap();
    for document in documents {
        writer.document(document).unwrap();
    }
    writer.finish().unwrap();
}

/// Read everything that opens; anything but an error or a value is a panic and fails the test.
fn read_all(prefix: &Path) -> Result<(), Error> {
    let pair = IndexedDataset::open(prefix)?;
    for i in 0..pair.lengths().len() {
        pair.sequence(i)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(documents in prop::collection::vec(prop::collection::vec(0u32..65_536, 0..40), 0..20), wide: bool) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a.b");
        let token_type = if wide { TokenType::I32 } else { TokenType::U16 };
        write(&prefix, token_type, &documents);
        let pair = IndexedDataset::open(&prefix).unwrap();
        prop_assert_eq!(pair.token_type(), token_type);
        prop_assert_eq!(pair.documents(), documents.len() as u64);
        prop_assert_eq!(pair.tokens(), documents.iter().map(|document| document.len() as u64).sum::<u64>());
        for (i, document) in documents.iter().enumerate() {
            prop_assert_eq!(&pair.sequence(i).unwrap(), document);
            if document.len() > 2 {
                let mut piece = vec![99];
                pair.read(i, 1, document.len() - 2, &mut piece).unwrap();
                prop_assert_eq!(&piece[1..], &document[1..document.len() - 1]);
            }
        }
        prop_assert!(pair.sequence(documents.len()).is_err());
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_changed_byte_of_the_index_is_found(at in any::<prop::sample::Index>(), flip in 1u8..=255) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a");
        write(&prefix, TokenType::I32, &[vec![1, 2, 3], vec![70_000], vec![]]);
        let mut bytes = fs::read(idx_path(&prefix)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(idx_path(&prefix), &bytes).unwrap();
        let result = read_all(&prefix);
        // The document index may be another valid one: everything else is checked against something.
        let documents_start = 9 + 8 + 1 + 16 + 3 * 12;
        prop_assert!(at >= documents_start || result.is_err(), "byte {} of the index went unnoticed", at);
        if let Err(error) = result {
            prop_assert!(error.is_user());
            prop_assert!(error.to_string().contains(".idx") || error.to_string().contains(".bin"), "{}", error);
        }
    }

    #[test]
    fn noise_never_panics(idx in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..40, bin in prop::collection::vec(any::<u8>(), 0..30)) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a");
        write(&prefix, TokenType::U16, &[vec![1, 2, 3], vec![4]]);
        // A good beginning, then noise, so that counts and arrays are reached.
        let mut bytes = fs::read(idx_path(&prefix)).unwrap();
        bytes.truncate(keep);
        bytes.extend(idx);
        fs::write(idx_path(&prefix), bytes).unwrap();
        fs::write(bin_path(&prefix), bin).unwrap();
        let _ = read_all(&prefix);
    }
}

#[test]
fn every_truncation_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a");
    write(&prefix, TokenType::U16, &[vec![1, 2, 3], vec![4]]);
    for path in [idx_path(&prefix), bin_path(&prefix)] {
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read_all(&prefix).unwrap_err();
            assert!(
                matches!(&error, Error::DamagedIndex { path: at, field, .. } if *at == path && field == "size"),
                "{length}: {error}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    read_all(&prefix).unwrap();
}

#[test]
fn errors_name_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a");
    let missing = IndexedDataset::open(&prefix).unwrap_err();
    assert!(matches!(missing, Error::MissingPath { .. }), "{missing}");
    write(&prefix, TokenType::U16, &[vec![1, 2, 3], vec![4]]);
    let good = fs::read(idx_path(&prefix)).unwrap();
    for (at, byte, field) in [
        (0, b'X', "magic"),
        (17, 9, "dtype"),
        (17, 5, "dtype"),
        (9, 2, "version"),
        (18, 9, "size"),
        (34, 2, "pointer 1"),
        (42, 3, "pointer 0"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        fs::write(idx_path(&prefix), bytes).unwrap();
        let message = IndexedDataset::open(&prefix).unwrap_err().to_string();
        assert!(message.contains("a.idx") && message.contains(field), "{message}");
    }
    fs::write(idx_path(&prefix), &good).unwrap();
    // As i32 the lengths no longer fit the .bin, whose size is then the field at fault, or the pointers, whichever is read first.
    fs::write(bin_path(&prefix), [0; 9]).unwrap();
    let message = IndexedDataset::open(&prefix).unwrap_err().to_string();
    assert!(
        message.contains("a.bin") && message.contains("9 bytes") && message.contains("8 bytes"),
        "{message}"
    );
}

#[test]
fn tokens_must_fit_and_be_positive() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a");
    let mut writer = Writer::create(&prefix, TokenType::U16).unwrap();
    assert!(matches!(writer.document(&[65_536]), Err(Error::OutOfRange { .. })));
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a dropped writer leaves nothing");
    write(&prefix, TokenType::I32, &[vec![1, 2]]);
    fs::write(bin_path(&prefix), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let error = read_all(&prefix).unwrap_err();
    assert!(
        matches!(&error, Error::DamagedIndex { field, found, .. } if field == "token 1" && found == "-1"),
        "{error}"
    );
}

#[test]
fn a_file_cut_short_while_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a");
    write(&prefix, TokenType::U16, &[vec![7; 5000]]);
    let pair = IndexedDataset::open(&prefix).unwrap();
    fs::OpenOptions::new().write(true).open(bin_path(&prefix)).unwrap().set_len(100).unwrap();
    assert!(matches!(pair.sequence(0), Err(Error::Io { .. })));
}
