//! Text to tokens and back: byte-level BPE, trained here, GPT-2's, or any `tokenizer.json`.
//!
//! Invariants: [`Tokenizer::encode`] never gives a special token, whatever the text says, so that a document cannot forge the end of a
//! document; special tokens are not text and decode to nothing; for the byte-level tokenizers (trained and GPT-2's) decoding the encoding of a text gives
//! its bytes back, and [`Tokenizer::byte_len`] counts exactly the bytes that tokens stand for.

mod byte_level;
mod train;

pub use train::train;

use crate::{Error, Result};
use byte_level::ByteTable;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tiktoken_rs::CoreBPE;

/// The token that ends a document, in the tokenizers trained here and in GPT-2's.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Names under which other tokenizers know the end of a document, in the order in which they are tried.
const END_NAMES: &[&str] =
    &[END_OF_TEXT, "<|end_of_text|>", "<eod>", "<|eod|>", "</s>", "<eos>", "[EOS]", "[SEP]"];
/// Size of the vocabulary trained where none is asked for.
pub const DEFAULT_VOCAB_SIZE: usize = 4096;
const GPT2_VOCAB_SIZE: usize = 50_257;
const GPT2_END_OF_TEXT: u32 = 50_256;

/// Which tokenizer to use, as a configuration says it.
///
/// Written `bpe` or `bpe:SIZE` (train one on the corpus), `gpt2`, or the path of a `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// Train a byte-level BPE on the corpus.
    Train {
        /// Size of the vocabulary, the end-of-document token and the 256 bytes included.
        vocab_size: usize,
    },
    /// GPT-2's BPE of 50,257 tokens.
    Gpt2,
    /// A `tokenizer.json` of the `tokenizers` library.
    File(PathBuf),
}

impl Default for TokenizerSpec {
    fn default() -> Self {
        TokenizerSpec::Train { vocab_size: DEFAULT_VOCAB_SIZE }
    }
}

impl FromStr for TokenizerSpec {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        match value.split_once(':') {
            _ if value == "gpt2" => Ok(TokenizerSpec::Gpt2),
            _ if value == "bpe" => Ok(TokenizerSpec::default()),
            Some(("bpe", size)) => {
                let vocab_size = size.parse().map_err(|_| Error::Tokenizer {
                    what: value.to_owned(),
                    reason: format!("{size:?} is no size of a vocabulary"),
                    remedy: "write bpe:SIZE, for example bpe:4096",
                })?;
                Ok(TokenizerSpec::Train { vocab_size })
            }
            _ => Ok(TokenizerSpec::File(PathBuf::from(value))),
        }
    }
}

impl TokenizerSpec {
    /// The tokenizer itself, where it exists already.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`]; [`Error::Tokenizer`] for one that is still to be trained.
    pub fn load(&self) -> Result<Tokenizer> {
        match self {
            TokenizerSpec::Gpt2 => Ok(Tokenizer::gpt2()),
            TokenizerSpec::File(path) => Tokenizer::from_file(path),
            TokenizerSpec::Train { .. } => Err(Error::Tokenizer {
                what: self.to_string(),
                reason: "it is not trained yet".to_owned(),
                remedy: "prepare the data first; the result names the trained tokenizer.json",
            }),
        }
    }
}

impl fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerSpec::Train { vocab_size } => write!(f, "bpe:{vocab_size}"),
            TokenizerSpec::Gpt2 => f.write_str("gpt2"),
            TokenizerSpec::File(path) => write!(f, "{}", path.display()),
        }
    }
}

enum Inner {
    Gpt2(&'static CoreBPE),
    Json(Box<tokenizers::Tokenizer>),
}

/// A tokenizer that is ready for use, from any number of threads.
pub struct Tokenizer {
    inner: Inner,
    /// The bytes of every token, where tokens stand for bytes.
    bytes: Option<ByteTable>,
    vocab_size: usize,
    eod: u32,
}

impl Tokenizer {
    /// GPT-2's BPE, from the tables inside the program.
    #[must_use]
    pub fn gpt2() -> Self {
        let bpe = tiktoken_rs::r50k_base_singleton();
        let bytes = ByteTable::new((0..GPT2_VOCAB_SIZE as u32).map(|id| match id {
            GPT2_END_OF_TEXT => Vec::new(),
            id => bpe.decode_bytes(&[id]).unwrap_or_default(),
        }));
        Tokenizer {
            inner: Inner::Gpt2(bpe),
            bytes: Some(bytes),
            vocab_size: GPT2_VOCAB_SIZE,
            eod: GPT2_END_OF_TEXT,
        }
    }

    /// Load a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Tokenizer`] if it is no tokenizer or names no end-of-document token.
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::from_json(&json, &path.display().to_string())
    }

    /// Load the contents of a `tokenizer.json`; `what` names them in errors.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] as [`Tokenizer::from_file`].
    pub fn from_json(json: &[u8], what: &str) -> Result<Self> {
        let error = |reason: String, remedy| Error::Tokenizer { what: what.to_owned(), reason, remedy };
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|source| {
            let remedy = "give a tokenizer.json of the tokenizers library, or `gpt2`";
            error(format!("it is no tokenizer.json: {source}"), remedy)
        })?;
        // What a model's own pipeline does to a prompt must not be done to a corpus.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|source| {
            error(format!("truncation cannot be turned off: {source}"), "remove \"truncation\" from it")
        })?;
        inner.set_encode_special_tokens(true);
        let eod = END_NAMES.iter().find_map(|name| inner.token_to_id(name)).ok_or_else(|| {
            let names = END_NAMES.join(" ");
            error(
                format!("it has no end-of-document token (looked for {names})"),
                "add <|endoftext|> to its special tokens",
            )
        })?;
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let bytes = byte_level::table(&inner, &vocab, vocab_size);
        Ok(Tokenizer { inner: Inner::Json(Box::new(inner)), bytes, vocab_size, eod })
    }

    /// The tokens of a text. Special tokens spelled out in it are encoded as the characters they are written with.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where a loaded tokenizer has no token for a part of the text; never for byte-level ones.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.inner {
            Inner::Gpt2(bpe) => Ok(bpe.encode_ordinary(text)),
            Inner::Json(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false).map_err(|source| Error::Tokenizer {
                    what: "encoding".to_owned(),
                    reason: source.to_string(),
                    remedy: "use a tokenizer that covers the text, for example a byte-level BPE",
                })?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// The text of tokens. Special tokens and tokens outside the vocabulary give nothing; bytes that are no UTF-8, as where a character is
    /// cut at either end, give U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        match (&self.bytes, &self.inner) {
            (Some(table), _) => String::from_utf8_lossy(&table.concat(tokens)).into_owned(),
            (None, Inner::Json(tokenizer)) => tokenizer.decode(tokens, true).unwrap_or_default(),
            (None, Inner::Gpt2(_)) => String::new(),
        }
    }

    /// The bytes of text that tokens stand for: exact for byte-level tokenizers, of the decoded text for others.
    #[must_use]
    pub fn byte_len(&self, tokens: &[u32]) -> u64 {
        match &self.bytes {
            Some(table) => tokens.iter().map(|&token| table.get(token).len() as u64).sum(),
            None => self.decode(tokens).len() as u64,
        }
    }

    /// Size of the vocabulary: every token is smaller.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The end-of-document token.
    #[must_use]
    pub fn eod(&self) -> u32 {
        self.eod
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.inner {
            Inner::Gpt2(_) => "gpt2",
            Inner::Json(_) => "json",
        };
        f.debug_struct("Tokenizer")
            .field("kind", &kind)
            .field("vocab_size", &self.vocab_size)
            .field("eod", &self.eod)
            .finish_non_exhaustive()
    }
}
