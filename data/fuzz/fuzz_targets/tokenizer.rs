//! `tokenizer.json`: loads or is refused, and what loads encodes and decodes.

#![no_main]

use data::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_json(bytes, "fuzz") {
        if let Ok(tokens) = tokenizer.encode("Some text, caf\u{e9} <|endoftext|>") {
            let _ = tokenizer.decode(&tokens);
        }
    }
});
