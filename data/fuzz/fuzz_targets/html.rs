//! Pages: both extractions, the encodings, and the repair of what comes out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let page = data::input::decode_html(bytes, None);
    let text = data::html::text(&page);
    let paragraphs = data::extract::justext::text(&page);
    for text in [text, paragraphs] {
        let repaired = data::clean::repair::repair(&text);
        assert!(!repaired.text.contains('\0'));
    }
});
