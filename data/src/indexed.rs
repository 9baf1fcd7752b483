//! Megatron's indexed data set: a `.bin` of tokens and an `.idx` that says where each sequence begins. Little-endian throughout.
//!
//! | `.idx` | type | |
//! |---|---|---|
//! | magic | 9 bytes | `MMIDIDX\0\0` |
//! | version | u64 | 1 |
//! | dtype | u8 | 4 = i32, 8 = u16 (u16 where the vocabulary is under 65,500) |
//! | sequences `n`, entries `m` | u64, u64 | `m` is the number of documents + 1 |
//! | lengths | i32 `[n]` | tokens of each sequence |
//! | pointers | i64 `[n]` | bytes from the start of the `.bin` |
//! | document index | i64 `[m]` | sequence that begins each document, then `n` |
//!
//! What [`Writer`] writes has one sequence a document, each ending in the end-of-document token. [`IndexedDataset`] reads any
//! file of the format, trusts no number of it before checking it against the sizes of both files, and reads tokens by position, so that a
//! file cut short under it is an error and not a fault of the process.

mod reader;
mod writer;

pub use reader::IndexedDataset;
pub use writer::Writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
/// Magic, version, dtype, sequences, entries of the document index.
const HEADER_BYTES: u64 = 9 + 8 + 1 + 8 + 8;

/// How a token is stored in the `.bin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Code 8, for vocabularies under 65,500.
    U16,
    /// Code 4.
    I32,
}

impl TokenType {
    /// The type that Megatron chooses for a vocabulary of this size.
    #[must_use]
    pub fn for_vocabulary(size: usize) -> Self {
        if size < 65_500 { TokenType::U16 } else { TokenType::I32 }
    }

    /// Bytes a token.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            TokenType::U16 => 2,
            TokenType::I32 => 4,
        }
    }

    fn code(self) -> u8 {
        match self {
            TokenType::U16 => 8,
            TokenType::I32 => 4,
        }
    }

    /// The largest token that can be stored.
    fn max(self) -> u32 {
        match self {
            TokenType::U16 => u16::MAX.into(),
            TokenType::I32 => i32::MAX as u32,
        }
    }
}

/// `prefix.bin`: the suffix is appended, whatever dots the prefix has.
#[must_use]
pub fn bin_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".bin")
}

/// `prefix.idx`.
#[must_use]
pub fn idx_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".idx")
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(suffix);
    name.into()
}
