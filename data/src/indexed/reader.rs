//! Reading a `.bin/.idx` pair that may be damaged.

use super::{HEADER_BYTES, MAGIC, TokenType, VERSION, bin_path, idx_path};
use crate::{Error, Result, read_at};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An open pair: the index in memory, the tokens read where they lie. Reading takes `&self` from any number of threads.
#[derive(Debug)]
pub struct IndexedDataset {
    bin: File,
    bin_path: PathBuf,
    token_type: TokenType,
    lengths: Vec<u32>,
    pointers: Vec<u64>,
    documents: u64,
    tokens: u64,
}

impl IndexedDataset {
    /// Open and check `prefix.bin`, `prefix.idx`.
    ///
    /// # Errors
    /// [`Error::MissingPath`] if one of them does not exist; [`Error::DamagedIndex`] naming the file, the field, what was found and what was
    /// expected; [`Error::UnsupportedIndex`] for a token type other than u16 and i32 or a later version of the format; [`Error::Io`].
    pub fn open(prefix: &Path) -> Result<Self> {
        let (idx_path, bin_path) = (idx_path(prefix), bin_path(prefix));
        let (mut idx, idx_bytes) = open(&idx_path)?;
        let (bin, bin_bytes) = open(&bin_path)?;
        let mut fields = Fields { path: &idx_path, file: &mut idx };
        if idx_bytes < HEADER_BYTES {
            return Err(fields.damaged("size", idx_bytes, format!("at least {HEADER_BYTES} bytes")));
        }
        let magic = fields.bytes(MAGIC.len())?;
        if magic != MAGIC {
            return Err(fields.damaged("magic", magic.escape_ascii(), MAGIC.escape_ascii()));
        }
        let version = fields.u64()?;
        if version != VERSION {
            let (found, expected) = (version.to_string(), "1");
            return Err(Error::UnsupportedIndex { path: idx_path, field: "version", found, expected });
        }
        let token_type = match fields.bytes(1)?[0] {
            8 => TokenType::U16,
            4 => TokenType::I32,
            code @ (1 | 2 | 3 | 5 | 6 | 7) => {
                let expected = "dtype 8 (u16) or 4 (i32)";
                let found = format!(
                    "{code} ({})",
                    ["u8", "i8", "i16", "", "i64", "f64", "f32"][usize::from(code) - 1]
                );
                return Err(Error::UnsupportedIndex { path: idx_path, field: "dtype", found, expected });
            }
            code => return Err(fields.damaged("dtype", code, "a code from 1 to 8")),
        };
        let sequences = fields.u64()?;
        let entries = fields.u64()?;
        // Sizes first, so that a wrong count asks for no memory.
        let body = u128::from(sequences) * 12 + u128::from(entries) * 8;
        let expected = u128::from(HEADER_BYTES) + body;
        // Multimodal files carry one more byte a sequence; it is of no use here and is left unread.
        if u128::from(idx_bytes) != expected && u128::from(idx_bytes) != expected + u128::from(sequences) {
            let expected =
                format!("{expected} bytes for {sequences} sequences and {entries} document entries");
            return Err(fields.damaged("size", format!("{idx_bytes} bytes"), expected));
        }
        let lengths = fields.lengths(sequences as usize)?;
        let pointers = fields.pointers(&lengths, token_type)?;
        fields.documents(entries as usize, sequences)?;
        let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let wanted = tokens * token_type.bytes() as u64;
        if bin_bytes != wanted {
            return Err(Error::DamagedIndex {
                path: bin_path,
                field: "size".to_owned(),
                found: format!("{bin_bytes} bytes"),
                expected: format!("{wanted} bytes for the {tokens} tokens of {}", idx_path.display()),
            });
        }
        Ok(IndexedDataset { bin, bin_path, token_type, lengths, pointers, documents: entries - 1, tokens })
    }

    /// The `.bin` file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.bin_path
    }

    /// How tokens are stored.
    #[must_use]
    pub fn token_type(&self) -> TokenType {
        self.token_type
    }

    /// Documents in the file.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Tokens of each sequence. Megatron shuffles and splits by sequence; in files of ours a sequence is a document.
    #[must_use]
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Tokens in the file.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The tokens of sequence `index`.
    ///
    /// # Errors
    /// As [`IndexedDataset::read`].
    pub fn sequence(&self, index: usize) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let length = self.lengths.get(index).copied().unwrap_or_default();
        self.read(index, 0, length as usize, &mut tokens)?;
        Ok(tokens)
    }

    /// Append `len` tokens of sequence `index` from token `start` to `tokens`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a sequence or token that is not there; [`Error::DamagedIndex`] for a negative token; [`Error::Io`].
    pub fn read(&self, index: usize, start: usize, len: usize, tokens: &mut Vec<u32>) -> Result<()> {
        let out_of_range = |name, value: usize, end: usize| Error::OutOfRange {
            name,
            value: value.to_string(),
            expected: format!("at most {end} in {}", self.bin_path.display()),
        };
        let Some((&length, &pointer)) = self.lengths.get(index).zip(self.pointers.get(index)) else {
            return Err(out_of_range("sequence", index, self.lengths.len().saturating_sub(1)));
        };
        let stop = start.saturating_add(len);
        if stop > length as usize {
            return Err(out_of_range("end of a piece", stop, length as usize));
        }
        let size = self.token_type.bytes();
        let mut bytes = vec![0u8; len * size];
        let at = pointer + (start * size) as u64;
        read_at(&self.bin, &mut bytes, at).map_err(Error::io("read", &self.bin_path))?;
        match self.token_type {
            TokenType::U16 => {
                let (pairs, _) = bytes.as_chunks::<2>();
                tokens.extend(pairs.iter().map(|&b| u32::from(u16::from_le_bytes(b))));
            }
            TokenType::I32 => {
                for (i, &b) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    let token = i32::from_le_bytes(b);
                    tokens.push(u32::try_from(token).map_err(|_| Error::DamagedIndex {
                        path: self.bin_path.clone(),
                        field: format!("token {}", at / size as u64 + i as u64),
                        found: token.to_string(),
                        expected: "a token of 0 or more".to_owned(),
                    })?);
                }
            }
        }
        Ok(())
    }

    /// Index in the `.bin` of the first token of sequence `index`, for messages.
    pub(crate) fn position(&self, index: usize) -> u64 {
        self.pointers[index] / self.token_type.bytes() as u64
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::MissingPath { path: path.to_owned() },
        _ => Error::io("read", path)(error),
    })?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    Ok((file, bytes))
}

/// Fields of the `.idx`, in order.
struct Fields<'a> {
    path: &'a Path,
    file: &'a mut File,
}

impl Fields<'_> {
    fn damaged(&self, field: impl ToString, found: impl ToString, expected: impl ToString) -> Error {
        Error::DamagedIndex {
            path: self.path.to_owned(),
            field: field.to_string(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(Error::io("read", self.path))?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were read")))
    }

    fn i64s(&mut self, count: usize) -> Result<Vec<i64>> {
        let bytes = self.bytes(count * 8)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect())
    }

    fn lengths(&mut self, count: usize) -> Result<Vec<u32>> {
        let bytes = self.bytes(count * 4)?;
        let lengths = bytes.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b)).enumerate();
        lengths
            .map(|(i, length)| {
                u32::try_from(length).map_err(|_| self.damaged(format!("length {i}"), length, "0 or more"))
            })
            .collect()
    }

    /// Pointers must be the running sum of the lengths: no gap, no overlap.
    fn pointers(&mut self, lengths: &[u32], token_type: TokenType) -> Result<Vec<u64>> {
        let mut expected = 0u64;
        let pointers = self.i64s(lengths.len())?;
        for (i, (&pointer, &length)) in pointers.iter().zip(lengths).enumerate() {
            if u64::try_from(pointer) != Ok(expected) {
                return Err(self.damaged(format!("pointer {i}"), pointer, expected));
            }
            expected += u64::from(length) * token_type.bytes() as u64;
        }
        Ok(pointers.into_iter().map(|pointer| pointer as u64).collect())
    }

    /// The document index rises from 0 to the number of sequences.
    fn documents(&mut self, count: usize, sequences: u64) -> Result<()> {
        let index = self.i64s(count)?;
        let (Some(&first), Some(&last)) = (index.first(), index.last()) else {
            return Err(self.damaged("document entries", 0, "at least 1"));
        };
        if first != 0 {
            return Err(self.damaged("document index 0", first, 0));
        }
        if u64::try_from(last) != Ok(sequences) {
            return Err(self.damaged(format!("document index {}", count - 1), last, sequences));
        }
        match index.windows(2).position(|pair| pair[0] > pair[1]) {
            None => Ok(()),
            Some(i) => Err(self.damaged(
                format!("document index {}", i + 1),
                index[i + 1],
                format!("at least {}", index[i]),
            )),
        }
    }
}
