//! What goes over an established connection: frames, each a header and a body.

use std::io::{self, Read, Write};

use crate::process::transport::Channel;

/// How each header begins: a stream that is out of step is found out at once.
const WORD: [u8; 4] = *b"mtnF";

/// Word, kind, channel, two zeros, number of the frame on this connection, length of the body; little-endian.
const HEADER: usize = 24;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A rank's message on a channel.
    Message(Channel),
    /// A failure: the rank at fault as 8 bytes, and its words.
    Failure,
    /// The sender leaves; nothing follows.
    Goodbye,
}

impl Kind {
    fn code(self) -> [u8; 2] {
        match self {
            Kind::Message(channel) => [1, channel.index() as u8],
            Kind::Failure => [2, 0],
            Kind::Goodbye => [3, 0],
        }
    }

    fn from_code(code: [u8; 2]) -> Option<Self> {
        match code {
            [1, channel] => Channel::ALL.get(usize::from(channel)).copied().map(Kind::Message),
            [2, 0] => Some(Kind::Failure),
            [3, 0] => Some(Kind::Goodbye),
            _ => None,
        }
    }
}

/// Writes a frame, the `number`-th of its connection.
pub(super) fn write(stream: &mut impl Write, number: u64, kind: Kind, body: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&WORD);
    header[4..6].copy_from_slice(&kind.code());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    stream.write_all(&header)?;
    stream.write_all(body)
}

/// Reads the next frame, which must be the `number`-th; `None` if the stream ends before it.
pub(super) fn read(stream: &mut impl Read, number: u64) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match stream.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let eight = |at: usize| header[at..at + 8].iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if header[..4] != WORD || header[6..8] != [0, 0] {
        return Err(invalid(format!("frame {number} does not begin as a frame")));
    }
    if eight(8) != number {
        return Err(invalid(format!("frame {} came instead of frame {number}", eight(8))));
    }
    let kind = Kind::from_code([header[4], header[5]]);
    let kind = kind.ok_or_else(|| invalid(format!("frame {number} is of no known kind")))?;
    let length = eight(16);
    // The body grows as it comes: a length that is wrong cannot take memory that nothing fills.
    let mut body = Vec::with_capacity(length.min(64 << 20) as usize);
    match stream.by_ref().take(length).read_to_end(&mut body)? as u64 == length {
        true => Ok(Some((kind, body))),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lane;
    use crate::process::Track;

    #[test]
    fn frames_come_back_and_wrong_ones_do_not() {
        let kinds = [
            Kind::Message(Channel::First(Track::Data)),
            Kind::Message(Channel::Lane(Lane::Backward)),
            Kind::Failure,
            Kind::Goodbye,
        ];
        let mut wire = Vec::new();
        for (number, kind) in kinds.into_iter().enumerate() {
            write(&mut wire, number as u64, kind, &vec![7; 3 * number]).unwrap();
        }
        let mut stream = wire.as_slice();
        for (number, kind) in kinds.into_iter().enumerate() {
            assert_eq!(read(&mut stream, number as u64).unwrap(), Some((kind, vec![7; 3 * number])));
        }
        assert_eq!(read(&mut stream, 4).unwrap(), None);

        let error = |wire: &[u8], number| read(&mut { wire }, number).unwrap_err();
        assert_eq!(error(&wire, 1).to_string(), "frame 0 came instead of frame 1");
        assert_eq!(error(&wire[..HEADER - 1], 0).kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error(&wire[HEADER..HEADER + HEADER + 2], 1).kind(), io::ErrorKind::UnexpectedEof);
        for at in [0, 4, 5, 6] {
            let mut wire = wire.clone();
            wire[at] ^= 0x40;
            assert_eq!(error(&wire, 0).kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }
}
