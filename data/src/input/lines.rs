//! Bytes of a file, decompressed, with their offset; and its lines.

use super::{Compression, InputFile, Place};
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Longest line that is kept; a longer one is a bad record.
pub(super) const LONGEST: usize = 256 << 20;
const BUFFER: usize = 1 << 20;

/// A file that is being read.
pub(super) struct Reader {
    inner: Box<dyn BufRead + Send>,
    /// Bytes given so far, decompressed.
    pub offset: u64,
    compressed: bool,
}

/// Why reading ended early.
pub(super) enum Stop {
    /// The compressed stream is damaged at this offset: what follows in the file is lost.
    Damaged(String),
    /// The system failed.
    Io(io::Error),
}

impl Reader {
    pub fn open(file: &InputFile) -> Result<Self> {
        let Place::Disk(path) = &file.place else {
            unreachable!("documents in memory are not read as bytes")
        };
        let fail = |error| Error::io("read", path)(error);
        let open = BufReader::with_capacity(BUFFER, File::open(path).map_err(fail)?);
        Ok(Reader::new(open, file.compression))
    }

    pub fn new(bytes: impl BufRead + Send + 'static, compression: Compression) -> Self {
        let inner: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(bytes),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(bytes)))
            }
            Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(bytes) {
                Ok(decoder) => Box::new(BufReader::with_capacity(BUFFER, decoder)),
                Err(error) => Box::new(BufReader::new(Failing(Some(error)))),
            },
        };
        Reader { inner, offset: 0, compressed: compression != Compression::None }
    }

    fn stop(&self, error: io::Error) -> Stop {
        // A decoder's complaint, as against the disk's.
        let theirs = matches!(
            error.kind(),
            io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::Other
        );
        match self.compressed && theirs {
            true => Stop::Damaged(format!("the compressed stream is damaged: {error}")),
            false => Stop::Io(error),
        }
    }

    /// Everything to the end of the file, at most [`LONGEST`] and a byte.
    pub fn rest(&mut self) -> std::result::Result<Vec<u8>, Stop> {
        self.take(LONGEST as u64 + 1)
    }

    /// The next `count` bytes, or those to the end. Memory is taken as they come, whatever `count` claims.
    pub fn take(&mut self, count: u64) -> std::result::Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        let result = (&mut self.inner).take(count).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        result.map_err(|error| self.stop(error))?;
        Ok(bytes)
    }

    /// Pass over `count` bytes.
    pub fn skip(&mut self, count: u64) -> std::result::Result<(), Stop> {
        let result = io::copy(&mut (&mut self.inner).take(count), &mut io::sink());
        self.offset += result.as_ref().copied().unwrap_or(0);
        result.map(|_| ()).map_err(|error| self.stop(error))
    }

    /// The next line with its newline; `None` at the end. Of a line over `longest` only so much, and a byte, is kept; the rest is passed over.
    pub fn line(&mut self, longest: usize) -> std::result::Result<Option<Vec<u8>>, Stop> {
        let mut line = Vec::new();
        let result = (&mut self.inner).take(longest as u64 + 1).read_until(b'\n', &mut line);
        self.offset += line.len() as u64;
        result.map_err(|error| self.stop(error))?;
        if line.len() > longest && line.last() != Some(&b'\n') {
            loop {
                let available = match self.inner.fill_buf() {
                    Ok([]) => break,
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(self.stop(error)),
                };
                let end = available.iter().position(|&byte| byte == b'\n');
                let used = end.map_or(available.len(), |end| end + 1);
                self.inner.consume(used);
                self.offset += used as u64;
                if end.is_some() {
                    break;
                }
            }
        }
        Ok((!line.is_empty()).then_some(line))
    }
}

/// Gives its error when it is read.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

impl Stop {
    /// The crate's error for what the system did; the reason for what the file is.
    pub fn reason(self, path: &Path) -> Result<String> {
        match self {
            Stop::Damaged(reason) => Ok(reason),
            Stop::Io(error) => Err(Error::io("read", path)(error)),
        }
    }
}
