//! Writing a `.bin/.idx` pair, document by document.

use super::{MAGIC, TokenType, VERSION, bin_path, idx_path};
use crate::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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
        Ok(())
    }

    /// Write the index and put both files in their place, the `.idx` last: a pair with an `.idx` is whole.
    ///
    /// # Errors
    /// [`Error::Io`], for example on a full disk.
    pub fn finish(self) -> Result<()> {
        let Writer { prefix, token_type, bin, lengths, .. } = self;
        let (bin_path, idx_path) = (bin_path(&prefix), idx_path(&prefix));
        let mut bin = bin.into_inner().map_err(|error| Error::io("write", &bin_path)(error.into_error()))?;
        let mut idx = BufWriter::with_capacity(1 << 20, temporary(&idx_path)?);
        write_index(&mut idx, token_type, &lengths).map_err(Error::io("write", &idx_path))?;
        let mut idx = idx.into_inner().map_err(|error| Error::io("write", &idx_path)(error.into_error()))?;
        for (file, path) in [(&mut bin, &bin_path), (&mut idx, &idx_path)] {
            file.flush().and_then(|()| file.as_file().sync_all()).map_err(Error::io("write", path))?;
        }
        bin.persist(&bin_path).map_err(|error| Error::io("write", &bin_path)(error.error))?;
        idx.persist(&idx_path).map_err(|error| Error::io("write", &idx_path)(error.error))?;
        Ok(())
    }
}

fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // The permissions of any new file, not those of a private temporary one: caches are shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io("write", path))
}

fn write_index(out: &mut impl Write, token_type: TokenType, lengths: &[i32]) -> std::io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[token_type.code()])?;
    out.write_all(&(lengths.len() as u64).to_le_bytes())?;
    out.write_all(&(lengths.len() as u64 + 1).to_le_bytes())?;
    for length in lengths {
        out.write_all(&length.to_le_bytes())?;
    }
    let mut pointer = 0i64;
    for &length in lengths {
        out.write_all(&pointer.to_le_bytes())?;
        pointer += i64::from(length) * token_type.bytes() as i64;
    }
    for document in 0..=lengths.len() as i64 {
        out.write_all(&document.to_le_bytes())?;
    }
    Ok(())
}
