//! Words of a text as the steps compare them: runs of letters, digits and `_` (Python's `\w+`), lower case, each as a 64-bit hash.

/// The words of a text, by their bytes.
pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
}

/// The words of `text`.
pub(crate) fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

/// A word: where it is, and what it is called in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub start: usize,
    pub end: usize,
    pub hash: u64,
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const PRIME: u64 = 0xd6e8_feb8_6659_fd93;

/// One more value into a hash: a multiplication folded to its middle.
#[inline]
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    let product = u128::from(hash ^ value.wrapping_mul(SEED)) * u128::from(PRIME ^ value.rotate_left(32));
    (product as u64) ^ ((product >> 64) as u64)
}

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        let bytes = self.text.as_bytes();
        let mut start = None;
        let mut hash = SEED;
        let (mut block, mut filled) = (0u64, 0u32);
        let mut i = self.at;
        while i < bytes.len() {
            let byte = bytes[i];
            let mut push = |byte: u8| {
                block = block << 8 | u64::from(byte);
                filled += 1;
                if filled == 8 {
                    hash = mix(hash, block);
                    (block, filled) = (0, 0);
                }
            };
            if byte.is_ascii() {
                if !(byte.is_ascii_alphanumeric() || byte == b'_') {
                    if start.is_some() {
                        break;
                    }
                    i += 1;
                    continue;
                }
                start.get_or_insert(i);
                push(byte.to_ascii_lowercase());
                i += 1;
                continue;
            }
            let c = self.text[i..].chars().next().unwrap_or_default();
            if !c.is_alphanumeric() {
                if start.is_some() {
                    break;
                }
                i += c.len_utf8();
                continue;
            }
            start.get_or_insert(i);
            let mut buffer = [0; 4];
            for lower in c.to_lowercase() {
                lower.encode_utf8(&mut buffer).bytes().for_each(&mut push);
            }
            i += c.len_utf8();
        }
        self.at = i;
        // The length tells a block of few letters from one of zeros.
        start.map(|start| Word { start, end: i, hash: mix(hash, block ^ u64::from(filled) << 60) })
    }
}

/// The hash of a run of words.
pub(crate) fn ngram_hash(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |hash, &word| mix(hash, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word_hash(word: &str) -> u64 {
        words(word).next().unwrap().hash
    }

    #[test]
    fn words_and_their_places() {
        let text = "The caf\u{c9}, the_2nd\u{2014}x!";
        let found: Vec<&str> = words(text).map(|word| &text[word.start..word.end]).collect();
        assert_eq!(found, ["The", "caf\u{c9}", "the_2nd", "x"]);
        assert_eq!(words("  ,").count(), 0);
    }

    #[test]
    fn case_is_no_difference_and_letters_are() {
        let hash = |text: &str| words(text).map(|word| word.hash).collect::<Vec<_>>();
        assert_eq!(hash("Stra\u{c9}e IN"), hash("STRA\u{e9}E in"));
        let many: std::collections::HashSet<u64> = (0..100_000)
            .map(|i| word_hash(&format!("w{i}")))
            .chain((1..9).map(|n| word_hash(&"a".repeat(n))))
            .collect();
        assert_eq!(many.len(), 100_008);
    }
}
