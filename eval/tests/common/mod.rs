//! What the tests share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};

use eval::scorer::Request;

/// The folder of the real sets, or a line that says why the test is skipped.
pub fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eval");
    if !folder.exists() {
        println!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The hash that the fixture has of requests.
pub fn digest(requests: &[Request]) -> String {
    let mut hash = blake3::Hasher::new();
    for text in requests.iter().flat_map(|request| [&request.context, &request.continuation]) {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}
