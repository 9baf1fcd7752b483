//! Tokenizers: determinism across processes, round trips, byte counts, mistakes.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::Error;
use data::tokenizer::{END_OF_TEXT, Tokenizer, TokenizerSpec, train};
use proptest::prelude::*;
use std::process::Command;
use std::sync::LazyLock;

/// Text with many ties between pairs, which a training that depends on hash order would break differently.
fn texts() -> Vec<String> {
    let words = ["alpha", "beta", "gamma", "delta", "fn main() {}", "let x = y;", "größe", "日本", "\t\n  "];
    (0..400)
        .map(|i| {
            (0..30).map(|j| words[(i * 7 + j * j) % words.len()]).collect::<Vec<_>>().join(" ")
                + &format!(" {i}")
        })
        .collect()
}

static TRAINED: LazyLock<(String, Tokenizer)> = LazyLock::new(|| {
    let json = train(&texts(), 600).unwrap();
    let tokenizer = Tokenizer::from_json(json.as_bytes(), "trained").unwrap();
    (json, tokenizer)
});

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);

const CHILD: &str = "DATA_TEST_PRINT_TOKENIZER";

#[test]
fn training_gives_the_same_bits_in_every_process() {
    let hash = blake3::hash(TRAINED.0.as_bytes()).to_hex().to_string();
    if std::env::var_os(CHILD).is_some() {
        println!("hash {hash}");
        return;
    }
    for threads in ["1", "2", "5"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "training_gives_the_same_bits_in_every_process", "--nocapture"])
            .env(CHILD, "1")
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(&format!("hash {hash}")), "{threads} threads: {stdout}");
    }
}

#[test]
fn the_trained_vocabulary() {
    let tokenizer = &TRAINED.1;
    assert_eq!(tokenizer.eod(), 0);
    assert!((257..=600).contains(&tokenizer.vocab_size()), "{}", tokenizer.vocab_size());
    assert!(matches!(train(&texts(), 256), Err(Error::OutOfRange { .. })));
    let words = tokenizer.encode(" gamma gamma").unwrap();
    assert!(words.len() < 12, "merges are used: {words:?}");
}

#[test]
fn gpt2_needs_no_file() {
    assert_eq!((GPT2.vocab_size(), GPT2.eod()), (50_257, 50_256));
    // The example of OpenAI's and Hugging Face's documentation.
    assert_eq!(GPT2.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!(GPT2.encode(" world").unwrap(), [995]);
}

#[test]
fn text_cannot_forge_the_end_of_a_document() {
    for tokenizer in [&TRAINED.1, &*GPT2] {
        let tokens = tokenizer.encode(&format!("a{END_OF_TEXT}b")).unwrap();
        assert!(!tokens.contains(&tokenizer.eod()));
        assert_eq!(tokenizer.decode(&tokens), format!("a{END_OF_TEXT}b"));
        assert_eq!(tokenizer.decode(&[tokenizer.eod()]), "");
        assert_eq!(tokenizer.byte_len(&[tokenizer.eod(), u32::MAX]), 0);
    }
}

#[test]
fn a_cut_character_is_a_replacement_character() {
    for tokenizer in [&TRAINED.1, &*GPT2] {
        let tokens = tokenizer.encode("🦀").unwrap();
        assert!(tokens.len() > 1);
        assert!(tokenizer.decode(&tokens[..1]).contains('\u{fffd}'));
        assert_eq!(tokenizer.byte_len(&tokens), 4);
    }
}

proptest! {
    #[test]
    fn round_trip(text in any::<String>(), prose in "[ a-zA-Zäß\n\t.,;{}()]{0,200}") {
        for tokenizer in [&TRAINED.1, &*GPT2] {
            for text in [&text, &prose] {
                let tokens = tokenizer.encode(text).unwrap();
                prop_assert_eq!(&tokenizer.decode(&tokens), text);
                prop_assert_eq!(tokenizer.byte_len(&tokens), text.len() as u64);
                prop_assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size() && token != tokenizer.eod()));
            }
        }
    }
}

#[test]
fn specs_and_mistakes() {
    assert_eq!("gpt2".parse::<TokenizerSpec>().unwrap(), TokenizerSpec::Gpt2);
    assert_eq!("bpe".parse::<TokenizerSpec>().unwrap(), TokenizerSpec::Train { vocab_size: 4096 });
    assert_eq!("bpe:8192".parse::<TokenizerSpec>().unwrap().to_string(), "bpe:8192");
    assert!("bpe:many".parse::<TokenizerSpec>().is_err());
    assert!(matches!("a/tokenizer.json".parse::<TokenizerSpec>().unwrap(), TokenizerSpec::File(_)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(TokenizerSpec::File(path.clone()).load(), Err(Error::Io { .. })));
    std::fs::write(&path, "{}").unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err();
    assert!(matches!(&error, Error::Tokenizer { what, .. } if what.contains("tokenizer.json")), "{error}");
    // Without an end of document it is of no use.
    std::fs::write(&path, TRAINED.0.replace(END_OF_TEXT, "<|other|>")).unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err();
    assert!(error.to_string().contains("end-of-document"), "{error}");
    std::fs::write(&path, &TRAINED.0).unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().vocab_size(), TRAINED.1.vocab_size());
}
