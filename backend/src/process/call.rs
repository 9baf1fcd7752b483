//! What ranks say of their calls, and how they cut data: the words that lead every message, shares and pieces.

use std::ops::Range;

use super::transport::{Channel, Track};
use crate::{Group, Result, View};

/// Shares begin at multiples of so many elements: never in the middle of a device's word.
pub(super) const GRAIN: usize = 64;

/// A collective in progress.
pub(super) struct Collective<'a> {
    pub(super) op: &'static str,
    pub(super) group: &'a Group,
    /// This rank's place in the group.
    pub(super) position: usize,
    /// What every rank must say, and how each message of the call begins.
    pub(super) words: Vec<u8>,
}

impl Collective<'_> {
    /// On which ranks compare what they call.
    pub(super) fn first(&self) -> Channel {
        Channel::First(Track::of(self.group.kind()))
    }

    /// On which what follows goes.
    pub(super) fn second(&self) -> Channel {
        Channel::Second(Track::of(self.group.kind()))
    }

    /// The others' places and ranks.
    pub(super) fn peers(&self) -> impl Iterator<Item = (usize, usize)> {
        self.group.ranks().iter().copied().enumerate().filter(|&(place, _)| place != self.position)
    }

    /// Zeros behind the words, to be overwritten by a payload.
    pub(super) fn frame(&self, payload: usize) -> Vec<u8> {
        let mut frame = vec![0; self.words.len() + payload];
        frame[..self.words.len()].copy_from_slice(&self.words);
        frame
    }
}

/// Words as they lead a message: their length, then they.
pub(super) fn lead(words: &str) -> Vec<u8> {
    [&(words.len() as u32).to_le_bytes(), words.as_bytes()].concat()
}

/// The words that lead a message, and what follows them.
pub(super) fn split(message: &[u8]) -> (&str, &[u8]) {
    let words = message.split_first_chunk().and_then(|(length, rest)| {
        let (words, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((std::str::from_utf8(words).ok()?, payload))
    });
    words.unwrap_or(("bytes that are no call", &[]))
}

/// How each piece of a point-to-point message begins: words for people, and then type and length for the comparison.
pub(super) fn message_words<B: crate::Buffer>(words: &str, data: View<'_, B>) -> Vec<u8> {
    [&lead(words)[..], &[data.dtype() as u8], &(data.len() as u64).to_le_bytes()].concat()
}

/// The group in words: its ranks, and for long ones a digest (FNV-1a) of them.
pub(super) fn describe(group: &Group) -> String {
    let (kind, ranks) = (group.kind().name(), group.ranks());
    if ranks.len() <= 16 {
        return format!("{kind} group {ranks:?}");
    }
    let digest =
        ranks.iter().flat_map(|rank| rank.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{kind} group of {} ranks ({digest:016x})", ranks.len())
}

/// Elements `start .. end` that the rank at `position` of `n` reduces, of `len`.
pub(super) fn share(len: usize, position: usize, n: usize) -> Range<usize> {
    let grains = len.div_ceil(GRAIN);
    let at = |i: usize| ((grains as u128 * i as u128 / n as u128) as usize * GRAIN).min(len);
    at(position)..at(position + 1)
}

/// `0 .. len` in pieces of at most `most` elements, each a whole number of grains but the last; one empty piece if there is nothing.
pub(super) fn pieces(len: usize, most: usize) -> Vec<Range<usize>> {
    let step = (most / GRAIN).max(1) * GRAIN;
    (0..len.max(1)).step_by(step).map(|start| start..(start + step).min(len)).collect()
}

/// Elements `range` of a view that has one axis.
pub(super) fn part<'a, B: crate::Buffer>(view: View<'a, B>, range: &Range<usize>) -> Result<View<'a, B>> {
    view.rows(range.start, range.len())
}
