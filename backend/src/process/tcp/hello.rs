//! The first words on a connection: who calls, and whether it is one of us.

use std::io::{self, Read, Write};

/// How every first message begins, in all versions.
const WORD: [u8; 8] = *b"mtnlgrnk";

/// Of the handshake and the frames. A rank of another version is refused.
const VERSION: u32 = 1;

/// Longest text in a handshake; the table of addresses of the largest world fits.
const LONGEST: u32 = 1 << 20;

/// What the caller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) world_size: usize,
    pub(super) rank: usize,
    /// Where it waits for ranks above its own.
    pub(super) port: u16,
    /// What must be equal on all ranks of a run.
    pub(super) identity: String,
}

impl Hello {
    pub(super) fn new(world_size: usize, rank: usize, port: u16, identity: &str) -> Self {
        Self { version: VERSION, world_size, rank, port, identity: identity.to_owned() }
    }

    /// What two ranks of one run have in common, in words.
    pub(super) fn describe(&self) -> String {
        format!("protocol {}, a world of {} ranks, run {:?}", self.version, self.world_size, self.identity)
    }

    pub(super) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut bytes = WORD.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.world_size as u32).to_le_bytes());
        bytes.extend((self.rank as u32).to_le_bytes());
        bytes.extend(self.port.to_le_bytes());
        text(&mut bytes, &self.identity);
        stream.write_all(&bytes)
    }

    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if whoever called speaks something else.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Self> {
        word(stream)?;
        let version = u32::from_le_bytes(bytes(stream)?);
        let world_size = u32::from_le_bytes(bytes(stream)?) as usize;
        let rank = u32::from_le_bytes(bytes(stream)?) as usize;
        let port = u16::from_le_bytes(bytes(stream)?);
        Ok(Self { version, world_size, rank, port, identity: read_text(stream)? })
    }
}

/// Rank 0's answer, once all have called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Where each rank but 0 waits for those above it, a line a rank.
    Welcome(String),
    /// The caller is of another run: what rank 0 is.
    Refused(String),
    /// The world does not come together, and why: the rank at fault and a text.
    Failed(usize, String),
}

impl Answer {
    pub(super) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let (code, rank, words) = match self {
            Answer::Welcome(table) => (0, 0, table),
            Answer::Refused(mine) => (1, 0, mine),
            Answer::Failed(rank, cause) => (2, *rank, cause),
        };
        let mut bytes = WORD.to_vec();
        bytes.push(code);
        bytes.extend((rank as u32).to_le_bytes());
        text(&mut bytes, words);
        stream.write_all(&bytes)
    }

    /// # Errors
    /// As [`Hello::read`].
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Self> {
        word(stream)?;
        let [code] = bytes(stream)?;
        let rank = u32::from_le_bytes(bytes(stream)?) as usize;
        let words = read_text(stream)?;
        match code {
            0 => Ok(Answer::Welcome(words)),
            1 => Ok(Answer::Refused(words)),
            2 => Ok(Answer::Failed(rank, words)),
            _ => Err(strange()),
        }
    }
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "another program, which does not speak the ranks' protocol")
}

fn bytes<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn word(stream: &mut impl Read) -> io::Result<()> {
    if bytes(stream)? == WORD { Ok(()) } else { Err(strange()) }
}

/// Appends the text, with its length before it.
fn text(bytes: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(LONGEST as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes.extend((end as u32).to_le_bytes());
    bytes.extend(&text.as_bytes()[..end]);
}

fn read_text(stream: &mut impl Read) -> io::Result<String> {
    let length = u32::from_le_bytes(bytes(stream)?);
    if length > LONGEST {
        return Err(strange());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| strange())
}
