//! The part of ZIP that `torch.save` writes: entries that are stored, neither compressed nor encrypted, in one file of any size (PKWARE's APPNOTE 6.3.10, sections
//! 4.3.6 to 4.3.16 and 4.5.3).
//!
//! Every length is held against the file's before anything is allocated, and what is read whole is held against its CRC.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The end of the central directory, without a comment.
const END: usize = 22;
/// The longest comment behind it.
const COMMENT: usize = 0xffff;
/// A file's header in the central directory, and before the file, without names.
const CENTRAL: usize = 46;
const LOCAL: usize = 30;

/// A file in the archive.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its header is.
    header: u64,
    /// Its length.
    bytes: u64,
    crc: u32,
}

/// An archive: its files by name.
#[derive(Debug)]
pub struct StoredZip {
    path: PathBuf,
    file: File,
    entries: BTreeMap<String, Entry>,
    /// Where the central directory begins, and so the files have ended.
    directory: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl StoredZip {
    /// Opens an archive and reads its directory.
    ///
    /// # Errors
    /// The file system's; it is no archive, is cut short, or has entries that are not stored.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io("read", path, &e);
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut zip = Self { path: path.to_owned(), file, entries: BTreeMap::new(), directory: 0 };
        let tail = len.saturating_sub((END + COMMENT) as u64);
        let bytes = zip.bytes(tail, len - tail)?;
        // The comment reaches to the end of the file.
        let end = (0..(bytes.len() + 1).saturating_sub(END)).rev().find(|at| {
            bytes[*at..].starts_with(b"PK\x05\x06")
                && number::<2>(&bytes, at + 20) as usize == bytes.len() - at - END
        });
        let Some(end) = end else {
            return Err(zip.damaged("it has no directory at its end", len));
        };
        let place = tail + end as u64;
        let end = &bytes[end..];
        let mut fields = [number::<2>(end, 10), number::<4>(end, 12), number::<4>(end, 16)];
        if fields.iter().zip([0xffff, 0xffff_ffff, 0xffff_ffff]).any(|(field, none)| *field == none) {
            fields = zip.wide_end(place)?;
        }
        zip.read_directory(fields, place)?;
        Ok(zip)
    }

    /// ZIP64's fields, whose place a locator before the end tells: entries, size and offset of the directory.
    fn wide_end(&self, end: u64) -> Result<[u64; 3]> {
        let locator = end.checked_sub(20).ok_or_else(|| self.damaged("it has no ZIP64 locator", end))?;
        let bytes = self.bytes(locator, 20)?;
        let place = number::<8>(&bytes, 8);
        if !bytes.starts_with(b"PK\x06\x07") || place.checked_add(56).is_none_or(|past| past > locator) {
            return Err(self.damaged("its ZIP64 locator leads nowhere", locator));
        }
        let bytes = self.bytes(place, 56)?;
        match bytes.starts_with(b"PK\x06\x06") {
            true => Ok([32, 40, 48].map(|at| number::<8>(&bytes, at))),
            false => Err(self.damaged("its ZIP64 end is none", place)),
        }
    }

    fn read_directory(&mut self, [entries, size, offset]: [u64; 3], end: u64) -> Result<()> {
        if offset.checked_add(size).is_none_or(|past| past > end) || entries > size / CENTRAL as u64 {
            return Err(self.damaged("its directory does not fit it", end));
        }
        self.directory = offset;
        let bytes = self.bytes(offset, size)?;
        let mut at = 0;
        for _ in 0..entries {
            let (name, entry, next) = self.directory_entry(&bytes, at)?;
            if self.entries.insert(name, entry).is_some() {
                return Err(self.damaged("a name is there twice", offset + at as u64));
            }
            at = next;
        }
        Ok(())
    }

    /// The entry at `at` of the directory, and where the next one is.
    fn directory_entry(&self, bytes: &[u8], at: usize) -> Result<(String, Entry, usize)> {
        let damaged = |why| self.damaged(why, self.directory + at as u64);
        let header = bytes
            .get(at..)
            .filter(|rest| rest.len() >= CENTRAL && rest.starts_with(b"PK\x01\x02"))
            .ok_or_else(|| damaged("its directory is cut short"))?;
        let [name, extra, comment] = [28, 30, 32].map(|at| number::<2>(header, at) as usize);
        let whole = CENTRAL + name + extra + comment;
        let header = header.get(..whole).ok_or_else(|| damaged("its directory is cut short"))?;
        let name_bytes = &header[CENTRAL..CENTRAL + name];
        let mut extras = &header[CENTRAL + name..CENTRAL + name + extra];
        let mut wide: &[u8] = &[];
        while extras.len() >= 4 {
            let (kind, len) = (number::<2>(extras, 0), number::<2>(extras, 2) as usize);
            let field = extras.get(4..4 + len).ok_or_else(|| damaged("an extra field is cut short"))?;
            if kind == 1 {
                wide = field;
            }
            extras = &extras[4 + len..];
        }
        // Length, packed length and place: 32 bits, or in this order among the 64-bit fields.
        let mut fields = [24, 20, 42].map(|at| number::<4>(header, at));
        for field in fields.iter_mut().filter(|field| **field == 0xffff_ffff) {
            let value = wide.split_off(..8).ok_or_else(|| damaged("a ZIP64 field is missing"))?;
            *field = number::<8>(value, 0);
        }
        let [bytes, packed, place] = fields;
        let (flags, method) = (number::<2>(header, 8), number::<2>(header, 10));
        if method != 0 || flags & 1 != 0 || bytes != packed {
            return Err(damaged("an entry is compressed or encrypted, which torch.save does not do"));
        }
        let room = self.directory.checked_sub(LOCAL as u64).and_then(|room| room.checked_sub(bytes));
        if room.is_none_or(|room| place > room) {
            return Err(damaged("an entry does not fit the file"));
        }
        let name = str::from_utf8(name_bytes).map_err(|_| damaged("a name is no UTF-8"))?;
        let entry = Entry { header: place, bytes, crc: number::<4>(header, 16) as u32 };
        Ok((name.to_owned(), entry, at + whole))
    }

    /// The error that the file is damaged, at a byte of it.
    pub fn damaged(&self, why: impl std::fmt::Display, at: u64) -> Error {
        Error::user(format!("it is no whole file of torch.save: {why}, at byte {at}"))
            .at(self.path.display().to_string())
            .remedy("copy the file again, or save it again")
    }

    /// The archive's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of its files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A file's length in bytes, if there is one of that name.
    pub fn len_of(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.bytes)
    }

    /// Where a file's contents begin in the archive.
    ///
    /// # Errors
    /// There is none of that name; its header is another than the directory's.
    pub fn start_of(&self, name: &str) -> Result<u64> {
        let entry = self.entry(name)?;
        let header = self.bytes(entry.header, LOCAL as u64)?;
        let start = entry.header + LOCAL as u64 + number::<2>(&header, 26) + number::<2>(&header, 28);
        let fits = start.checked_add(entry.bytes).is_some_and(|end| end <= self.directory);
        if !header.starts_with(b"PK\x03\x04") || number::<2>(&header, 26) != name.len() as u64 || !fits {
            return Err(self.damaged(format_args!("{name} has no header"), entry.header));
        }
        match self.bytes(entry.header + LOCAL as u64, name.len() as u64)? == name.as_bytes() {
            true => Ok(start),
            false => Err(self.damaged(format_args!("{name} has another's header"), entry.header)),
        }
    }

    /// A whole file, of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`start_of`](Self::start_of); it is longer, or not what it was when it was written.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let (entry, start) = (self.entry(name)?, self.start_of(name)?);
        if entry.bytes > limit {
            let why = format!("{name} has {} bytes, more than the {limit} that are read", entry.bytes);
            return Err(self.damaged(why, start));
        }
        let bytes = self.bytes(start, entry.bytes)?;
        match crc32fast::hash(&bytes) == entry.crc {
            true => Ok(bytes),
            false => Err(self.damaged(format_args!("{name} has another checksum"), start)),
        }
    }

    /// Holds a file against its checksum.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn check(&self, name: &str) -> Result<()> {
        let (entry, start) = (self.entry(name)?, self.start_of(name)?);
        let (mut hasher, mut at, end) = (crc32fast::Hasher::new(), start, start + entry.bytes);
        while at < end {
            let part = self.bytes(at, (end - at).min(1 << 20))?;
            hasher.update(&part);
            at += part.len() as u64;
        }
        match hasher.finalize() == entry.crc {
            true => Ok(()),
            false => Err(self.damaged(format_args!("{name} has another checksum"), start)),
        }
    }

    /// Bytes of the archive itself, which the caller has found to be inside it.
    ///
    /// # Errors
    /// The file system's.
    pub fn bytes(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::io("read", &self.path, &e))?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| self.damaged(format_args!("{name} is missing"), self.directory))
    }
}
