//! What comparing needs of every document, on disk: its shingles, and a hash for each band.

use crate::{Error, Result, read_at};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Being written, in the order of the documents.
pub(super) struct Spool {
    folder: PathBuf,
    shingles: BufWriter<File>,
    bands: Vec<BufWriter<File>>,
    /// Number of each document in it, and where its shingles end, in shingles.
    documents: Vec<u32>,
    ends: Vec<u64>,
}

/// Written.
pub(super) struct Sealed {
    folder: PathBuf,
    shingles: File,
    bands: Vec<File>,
    documents: Vec<u32>,
    ends: Vec<u64>,
}

impl Spool {
    pub fn create(folder: &Path, bands: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        // Without a name: gone with the process, whatever ends it.
        let file = |size: usize| {
            let file = tempfile::tempfile_in(folder).map_err(Error::io("write a scratch file in", folder))?;
            Ok(BufWriter::with_capacity(size, file))
        };
        Ok(Spool {
            folder: folder.to_owned(),
            shingles: file(1 << 20)?,
            bands: (0..bands).map(|_| file(1 << 16)).collect::<Result<_>>()?,
            documents: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// A document without shingles is like no other and is left out.
    pub fn push(&mut self, number: u64, shingles: &[u32], bands: &[u64]) -> Result<()> {
        if shingles.is_empty() {
            return Ok(());
        }
        let failed = |error| Error::io("write a scratch file in", &self.folder)(error);
        let bytes: Vec<u8> = shingles.iter().flat_map(|shingle| shingle.to_le_bytes()).collect();
        self.shingles.write_all(&bytes).map_err(failed)?;
        for (file, band) in self.bands.iter_mut().zip(bands) {
            file.write_all(&band.to_le_bytes()).map_err(failed)?;
        }
        self.documents.push(number as u32);
        self.ends.push(self.ends.last().copied().unwrap_or_default() + shingles.len() as u64);
        Ok(())
    }

    pub fn seal(self) -> Result<Sealed> {
        let folder = self.folder;
        let done = |file: BufWriter<File>| {
            file.into_inner()
                .map_err(|error| Error::io("write a scratch file in", &folder)(error.into_error()))
        };
        Ok(Sealed {
            shingles: done(self.shingles)?,
            bands: self.bands.into_iter().map(done).collect::<Result<_>>()?,
            documents: self.documents,
            ends: self.ends,
            folder,
        })
    }
}

impl Sealed {
    /// Number of the document at this place of the spool.
    pub fn document(&self, at: u32) -> u32 {
        self.documents[at as usize]
    }

    /// How many shingles the document at this place has.
    pub fn size(&self, at: u32) -> u64 {
        self.ends[at as usize] - self.start(at)
    }

    fn start(&self, at: u32) -> u64 {
        (at as usize).checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The shingles of the document at this place.
    pub fn shingles(&self, at: u32) -> Result<Vec<u32>> {
        let mut bytes = vec![0; self.size(at) as usize * 4];
        read_at(&self.shingles, &mut bytes, self.start(at) * 4)
            .map_err(Error::io("read a scratch file in", &self.folder))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect())
    }

    /// The band's hash of every document.
    pub fn band(&self, band: usize) -> Result<Vec<u64>> {
        let failed = |error| Error::io("read a scratch file in", &self.folder)(error);
        let mut file = &self.bands[band];
        file.rewind().map_err(failed)?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut bytes = [0; 8];
        let mut hashes = Vec::with_capacity(self.documents.len());
        for _ in 0..self.documents.len() {
            reader.read_exact(&mut bytes).map_err(failed)?;
            hashes.push(u64::from_le_bytes(bytes));
        }
        Ok(hashes)
    }
}
