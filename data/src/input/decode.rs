//! The characters of a page: by byte order mark, the server's word, the page's own `<meta>`, else UTF-8 if it is, else windows-1252 as browsers take it.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Bytes at the start of a page in which its declaration is looked for, as browsers do.
const DECLARED_WITHIN: usize = 1024;

/// The text of a page's bytes. `charset` is what the server said.
#[must_use]
pub fn decode_html(bytes: &[u8], charset: Option<&str>) -> String {
    let named = |label: &str| Encoding::for_label(label.trim().as_bytes());
    let encoding = charset
        .and_then(named)
        .or_else(|| declared(bytes))
        .unwrap_or_else(|| if std::str::from_utf8(bytes).is_ok() { UTF_8 } else { WINDOWS_1252 });
    // The method looks for a byte order mark first.
    encoding.decode(bytes).0.into_owned()
}

/// What `<meta charset=…>` or `<meta http-equiv content="…; charset=…">` says.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(DECLARED_WITHIN)].to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let mut rest = &head[..];
    while let Some(at) = rest.find("<meta") {
        let tag = &rest[at..];
        let tag = &tag[..tag.find('>').unwrap_or(tag.len())];
        if let Some((_, value)) = tag.split_once("charset") {
            let value =
                value.trim_start().strip_prefix('=').map(|v| v.trim_start().trim_start_matches(['"', '\'']));
            let label: Option<&str> = value.and_then(|v| v.split(['"', '\'', ';', ' ', '/']).next());
            if let Some(encoding) = label.and_then(|label| Encoding::for_label(label.as_bytes())) {
                // A page that was read as ASCII this far is not in UTF-16, whatever it says.
                return Some(if encoding.is_ascii_compatible() { encoding } else { UTF_8 });
            }
        }
        rest = &rest[at + 5..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_encoding_is_said() {
        assert_eq!(decode_html(b"caf\xc3\xa9", None), "caf\u{e9}");
        assert_eq!(decode_html(b"caf\xe9 \x93x\x94", None), "caf\u{e9} \u{201c}x\u{201d}");
        assert_eq!(decode_html(b"\xd0", Some("koi8-r")), "\u{43f}");
        assert_eq!(decode_html(b"<META charset='KOI8-R'>\xd0", None), "<META charset='KOI8-R'>\u{43f}");
        let equiv = b"<meta http-equiv=\"Content-Type\" content=\"text/html; charset=iso-8859-2\">\xb1";
        assert!(decode_html(equiv, None).ends_with('\u{105}'));
        assert_eq!(decode_html(b"\xef\xbb\xbfx", Some("latin1")), "x");
    }
}
