//! Writing a `.bin/.idx` pair, document by document.

use super::{MAGIC, TokenType, VERSION, bin_path, idx_path};
use crate::aside::{publish, temporary};
use crate::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Documents, and for each without a token the sequences before it.
#[derive(Debug)]
struct Documents {
    entries: u64,
    empty: Vec<u64>,
}

/// Writes one pair. Nothing appears under its name before [`Writer::finish`]; a writer that is dropped leaves nothing behind.
///
/// ```
/// # fn main() -> data::Result<()> {
/// # let folder = tempfile::tempdir().expect("a temporary folder");
/// let prefix = folder.path().join("pair");
/// let mut writer = data::indexed::Writer::create(&prefix, data::indexed::TokenType::U16)?;
/// writer.document(&[5, 6, 7, 0])?;
/// writer.finish()?;
/// let pair = data::indexed::IndexedDataset::open(&prefix)?;
/// assert_eq!(pair.sequence(0)?, [5, 6, 7, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    prefix: PathBuf,
    token_type: TokenType,
    bin: BufWriter<NamedTempFile>,
    lengths: Vec<i32>,
    documents: Documents,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begin the pair `prefix.bin`, `prefix.idx`, in a folder that exists.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn create(prefix: &Path, token_type: TokenType) -> Result<Self> {
        let bin = temporary(&bin_path(prefix))?;
        Ok(Writer {
            prefix: prefix.to_owned(),
            token_type,
            bin: BufWriter::with_capacity(1 << 20, bin),
            lengths: Vec::new(),
            documents: Documents { entries: 0, empty: Vec::new() },
            bytes: Vec::new(),
        })
    }

    /// Append a document of one sequence, its end-of-document token included.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a token that the type cannot hold or 2^31 tokens or more; [`Error::Io`], for example on a full disk.
    pub fn document(&mut self, tokens: &[u32]) -> Result<()> {
        if let Some(token) = tokens.iter().find(|token| **token > self.token_type.max()) {
            let expected = format!("at most {} for {:?}", self.token_type.max(), self.token_type);
            return Err(Error::OutOfRange { name: "token", value: token.to_string(), expected });
        }
        let length = i32::try_from(tokens.len()).map_err(|_| Error::OutOfRange {
            name: "tokens of a document",
            value: tokens.len().to_string(),
            expected: "under 2^31".to_owned(),
        })?;
        self.bytes.clear();
        match self.token_type {
            TokenType::U16 => {
                self.bytes.extend(tokens.iter().flat_map(|&token| (token as u16).to_le_bytes()))
            }
            TokenType::I32 => {
                self.bytes.extend(tokens.iter().flat_map(|&token| (token as i32).to_le_bytes()))
            }
        }
        self.bin.write_all(&self.bytes).map_err(Error::io("write", &bin_path(&self.prefix)))?;
        self.lengths.push(length);
        self.documents.entries += 1;
        Ok(())
    }

    /// A document without a token: an entry of the document index that no sequence belongs to, as Megatron writes it.
    pub fn empty_document(&mut self) {
        self.documents.empty.push(self.lengths.len() as u64);
        self.documents.entries += 1;
    }

    /// Documents written so far.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.documents.entries
    }

    /// Write the index and put both files in their place, the `.idx` last: a pair with an `.idx` is whole.
    ///
    /// # Errors
    /// [`Error::Io`], for example on a full disk.
    pub fn finish(self) -> Result<()> {
        let Writer { prefix, token_type, bin, lengths, documents, .. } = self;
        let (bin_path, idx_path) = (bin_path(&prefix), idx_path(&prefix));
        let bin = bin.into_inner().map_err(|error| Error::io("write", &bin_path)(error.into_error()))?;
        let mut idx = BufWriter::with_capacity(1 << 20, temporary(&idx_path)?);
        write_index(&mut idx, token_type, &lengths, &documents).map_err(Error::io("write", &idx_path))?;
        let idx = idx.into_inner().map_err(|error| Error::io("write", &idx_path)(error.into_error()))?;
        publish(bin, &bin_path)?;
        publish(idx, &idx_path)?;
        Ok(())
    }
}

fn write_index(
    out: &mut impl Write,
    token_type: TokenType,
    lengths: &[i32],
    documents: &Documents,
) -> std::io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[token_type.code()])?;
    out.write_all(&(lengths.len() as u64).to_le_bytes())?;
    out.write_all(&(documents.entries + 1).to_le_bytes())?;
    for length in lengths {
        out.write_all(&length.to_le_bytes())?;
    }
    let mut pointer = 0i64;
    for &length in lengths {
        out.write_all(&pointer.to_le_bytes())?;
        pointer += i64::from(length) * token_type.bytes() as i64;
    }
    let mut empty = documents.empty.iter().peekable();
    for sequences in 0..=lengths.len() as u64 {
        out.write_all(&(sequences as i64).to_le_bytes())?;
        while empty.next_if_eq(&&sequences).is_some() {
            out.write_all(&(sequences as i64).to_le_bytes())?;
        }
    }
    Ok(())
}
