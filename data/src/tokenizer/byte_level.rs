//! The bytes behind the tokens of a byte-level vocabulary.
//!
//! A byte-level BPE writes its tokens in 256 printable characters that stand for the bytes (Radford et al. 2019, `bytes_to_unicode`): the printable bytes of
//! Latin-1 stand for themselves, the others for U+0100 onwards, in order.

use std::collections::HashMap;
use tokenizers::DecoderWrapper;

/// The bytes of every token, in one piece.
pub(super) struct ByteTable {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl ByteTable {
    /// From the bytes of token 0, 1, ….
    pub(super) fn new(tokens: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut table = ByteTable { bytes: Vec::new(), ends: Vec::new() };
        for token in tokens {
            table.bytes.extend_from_slice(&token);
            table.ends.push(table.bytes.len() as u32);
        }
        table
    }

    /// The bytes of a token; none outside the vocabulary.
    pub(super) fn get(&self, token: u32) -> &[u8] {
        let token = token as usize;
        let Some(&end) = self.ends.get(token) else { return &[] };
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn concat(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&token| self.get(token)).copied().collect()
    }
}

/// The table of a loaded tokenizer; `None` if its tokens do not stand for bytes.
pub(super) fn table(
    tokenizer: &tokenizers::Tokenizer,
    vocab: &HashMap<String, u32>,
    vocab_size: usize,
) -> Option<ByteTable> {
    if !matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
        return None;
    }
    let added = tokenizer.get_added_tokens_decoder();
    let of_char = bytes_of_chars();
    let mut tokens = vec![Vec::new(); vocab_size];
    for (content, &id) in vocab {
        tokens[id as usize] = match added.get(&id) {
            Some(token) if token.special => Vec::new(),
            Some(token) => token.content.clone().into_bytes(),
            None => content.chars().map(|c| of_char.get(&c).copied()).collect::<Option<_>>()?,
        };
    }
    Some(ByteTable::new(tokens.into_iter()))
}

fn bytes_of_chars() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                next += 1;
                (char::from_u32(next - 1).expect("U+0100 to U+0143 are characters"), byte)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let chars = bytes_of_chars();
        let library = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert_eq!(chars.len(), 256);
        assert!(library.iter().all(|c| chars.contains_key(c)));
        assert_eq!((chars[&'Ġ'], chars[&'Ċ'], chars[&'a']), (b' ', b'\n', b'a'));
    }

    #[test]
    fn outside_the_table_is_nothing() {
        let table = ByteTable::new([b"ab".to_vec(), Vec::new(), b"c".to_vec()].into_iter());
        assert_eq!(table.concat(&[2, 1, 0, 9]), b"cab");
        assert_eq!(table.get(u32::MAX), b"");
    }
}
