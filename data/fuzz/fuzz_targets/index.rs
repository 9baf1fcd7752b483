//! `.idx` beside `.bin`: opens and reads within its files, or is refused.

#![no_main]

use data::indexed::{IndexedDataset, bin_path, idx_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let (bin, idx) = rest.split_at(usize::from(cut).min(rest.len()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("pair");
    std::fs::write(bin_path(&prefix), bin).expect("a file in a temporary folder");
    // Without its magic nothing gets anywhere.
    std::fs::write(idx_path(&prefix), [b"MMIDIDX\0\0", idx].concat()).expect("a file in a temporary folder");
    if let Ok(pair) = IndexedDataset::open(&prefix) {
        for i in 0..pair.lengths().len() {
            let _ = pair.sequence(i);
        }
    }
});
