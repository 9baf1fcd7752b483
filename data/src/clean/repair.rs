//! Text as its writer meant it, in the manner of ftfy (Speer 2019): undoes what wrong decoders, wrong encoders and copying did.
//!
//! | fix | example |
//! |---|---|
//! | UTF-8 that was read as windows-1252 or Latin-1, once or more often | `cafÃ©` to `café`, `donâ€™t` to `don’t` |
//! | HTML entities in text without tags | `&amp;` to `&` |
//! | Latin ligatures and full-width letters | `ﬁ` to `fi`, `Ａ` to `A` |
//! | curly quotes to straight ones | `’` to `'` |
//! | line breaks to `\n`; control characters, byte order marks, interlinear marks and terminal escapes removed | |
//! | canonical composition (NFC) | `e` + U+0301 to `é` |
//!
//! A run of characters is taken for wrongly read UTF-8 only if all of it is valid UTF-8 and gives letters and marks of common scripts, so that text which merely uses
//! the same characters stays.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Times that a text may have been wrongly read.
const ROUNDS: usize = 3;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// UTF-8 had been read as something else.
    Encoding,
    /// Entities were written out.
    Entities,
    /// Ligatures and full-width letters were made plain.
    Width,
    /// Quotes were made straight.
    Quotes,
    /// Control characters went, and line breaks became one kind.
    Control,
    /// Characters were composed.
    Composition,
}

impl Fix {
    /// In words, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fix::Encoding => "wrong encoding",
            Fix::Entities => "HTML entities",
            Fix::Width => "ligatures and width",
            Fix::Quotes => "curly quotes",
            Fix::Control => "control characters and line breaks",
            Fix::Composition => "canonical composition",
        }
    }
}

/// A text and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The text.
    pub text: String,
    /// What was done, in order.
    pub fixes: Vec<Fix>,
}

/// Mend a text.
#[must_use]
pub fn repair(text: &str) -> Repaired {
    type Mend = fn(&str) -> Cow<'_, str>;
    let mends: [(Fix, Mend); 6] = [
        (Fix::Encoding, encoding),
        (Fix::Entities, entities),
        (Fix::Width, width),
        (Fix::Quotes, quotes),
        (Fix::Control, control),
        (Fix::Composition, composition),
    ];
    let mut text = text.to_owned();
    let mut fixes = Vec::new();
    for (fix, mend) in mends {
        if let Cow::Owned(mended) = mend(&text)
            && mended != text
        {
            text = mended;
            fixes.push(fix);
        }
    }
    Repaired { text, fixes }
}

/// The byte that a character was, if windows-1252 (or Latin-1 where that has none) read it.
fn byte_of(c: char) -> Option<u8> {
    const C1: [u32; 32] = [
        0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152,
        0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122,
        0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178,
    ];
    match u32::from(c) {
        code @ 0x80..=0xff => Some(code as u8),
        code => C1.iter().position(|&c1| c1 == code).map(|at| 0x80 + at as u8),
    }
}

/// Whether a wrongly read character may have been this one.
fn is_plausible(c: char) -> bool {
    matches!(u32::from(c),
        0x80..=0x17f | 0x192 | 0x2c6 | 0x2dc // Latin, and what else windows-1252 has
        | 0x370..=0x52f         // Greek, Cyrillic
        | 0x590..=0x6ff         // Hebrew, Arabic
        | 0x900..=0xdff | 0xe00..=0xe7f
        | 0x1e00..=0x1fff
        | 0x2010..=0x2044 | 0x20a0..=0x20bf | 0x2100..=0x22ff | 0x2500..=0x27bf
        | 0x3000..=0x30ff | 0x4e00..=0x9fff | 0xac00..=0xd7af
        | 0xfb00..=0xfb06 | 0xfeff | 0xff01..=0xffee | 0x1f300..=0x1faff)
}

fn encoding(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        match once_wrongly_read(&text) {
            Some(mended) => text = Cow::Owned(mended),
            None => break,
        }
    }
    text
}

fn once_wrongly_read(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut mended = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| !c.is_ascii()) {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        match sequence(rest) {
            // A control character only as a byte of what was read wrongly twice: behind another.
            Some((c, _)) if c.is_control() && mended.chars().next_back().is_none_or(|c| c.is_ascii()) => {
                let first = rest.chars().next().unwrap_or_default();
                mended.push(first);
                rest = &rest[first.len_utf8()..];
            }
            Some((c, used)) if is_sure(rest) || !is_shouting(&mended, rest) => {
                mended.push(c);
                rest = &rest[used..];
                changed = true;
            }
            _ => {
                let c = rest.chars().next().unwrap_or_default();
                mended.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    mended.push_str(rest);
    changed.then_some(mended)
}

/// The character whose UTF-8 the first characters of `text` spell, and their length.
fn sequence(text: &str) -> Option<(char, usize)> {
    let mut bytes = [0u8; 4];
    let mut chars = text.char_indices();
    let (_, first) = chars.next()?;
    bytes[0] = byte_of(first)?;
    let count = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let mut used = first.len_utf8();
    for byte in &mut bytes[1..count] {
        let (at, c) = chars.next()?;
        *byte = match c {
            // A no-break space often became a plain one on the way.
            ' ' if count > 2 => 0xa0,
            c => byte_of(c)?,
        };
        used = at + c.len_utf8();
    }
    let decoded = std::str::from_utf8(&bytes[..count]).ok()?.chars().next()?;
    is_plausible(decoded).then_some((decoded, used))
}

/// Whether the place goes on with a word in capitals, whose last letter and the quotation mark behind it may be meant.
fn is_shouting(before: &str, rest: &str) -> bool {
    let upper = |c: char| c.is_uppercase();
    // What was read wrongly twice is full of these three.
    let meant = |c: char| upper(c) && !matches!(c, '\u{c2}' | '\u{c3}' | '\u{178}');
    before.chars().next_back().is_some_and(meant) && rest.chars().next().is_some_and(upper)
}

/// Whether the first two characters can hardly be meant, even in capitals.
fn is_sure(rest: &str) -> bool {
    let mut chars = rest.chars();
    let (first, second) = (chars.next(), chars.next());
    matches!(first, Some('\u{c2}' | '\u{c3}'))
        && second.is_some_and(|c| !matches!(c, '\u{2013}'..='\u{2026}'))
}

fn entities(text: &str) -> Cow<'_, str> {
    // In text with tags they may be meant.
    if !text.contains('&') || text.contains('<') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&rest[1..end])?, end + 1))) {
            Some((c, used)) => {
                out.push(c);
                rest = &rest[used..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        // What browsers make of the numbers that windows-1252 has between 128 and 159.
        let byte = u8::try_from(code).ok().filter(|byte| (0x80..0xa0).contains(byte));
        return match byte {
            Some(byte) => encoding_rs::WINDOWS_1252.decode(&[byte]).0.chars().next(),
            None => char::from_u32(code).filter(|&c| c != '\0'),
        };
    }
    ENTITIES.iter().find(|(known, _)| *known == name).map(|&(_, c)| c)
}

/// The named ones that text is found with.
const ENTITIES: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("iexcl", '\u{a1}'),
    ("cent", '\u{a2}'),
    ("pound", '\u{a3}'),
    ("yen", '\u{a5}'),
    ("sect", '\u{a7}'),
    ("copy", '\u{a9}'),
    ("laquo", '\u{ab}'),
    ("shy", '\u{ad}'),
    ("reg", '\u{ae}'),
    ("deg", '\u{b0}'),
    ("plusmn", '\u{b1}'),
    ("para", '\u{b6}'),
    ("middot", '\u{b7}'),
    ("raquo", '\u{bb}'),
    ("frac14", '\u{bc}'),
    ("frac12", '\u{bd}'),
    ("frac34", '\u{be}'),
    ("iquest", '\u{bf}'),
    ("times", '\u{d7}'),
    ("divide", '\u{f7}'),
    ("agrave", '\u{e0}'),
    ("aacute", '\u{e1}'),
    ("acirc", '\u{e2}'),
    ("auml", '\u{e4}'),
    ("aring", '\u{e5}'),
    ("aelig", '\u{e6}'),
    ("ccedil", '\u{e7}'),
    ("egrave", '\u{e8}'),
    ("eacute", '\u{e9}'),
    ("ecirc", '\u{ea}'),
    ("euml", '\u{eb}'),
    ("igrave", '\u{ec}'),
    ("iacute", '\u{ed}'),
    ("icirc", '\u{ee}'),
    ("iuml", '\u{ef}'),
    ("ntilde", '\u{f1}'),
    ("ograve", '\u{f2}'),
    ("oacute", '\u{f3}'),
    ("ocirc", '\u{f4}'),
    ("ouml", '\u{f6}'),
    ("oslash", '\u{f8}'),
    ("ugrave", '\u{f9}'),
    ("uacute", '\u{fa}'),
    ("ucirc", '\u{fb}'),
    ("uuml", '\u{fc}'),
    ("szlig", '\u{df}'),
    ("Auml", '\u{c4}'),
    ("Ouml", '\u{d6}'),
    ("Uuml", '\u{dc}'),
    ("Eacute", '\u{c9}'),
    ("Agrave", '\u{c0}'),
    ("Ccedil", '\u{c7}'),
    ("Oslash", '\u{d8}'),
    ("Aring", '\u{c5}'),
    ("euro", '\u{20ac}'),
    ("trade", '\u{2122}'),
    ("hellip", '\u{2026}'),
    ("ndash", '\u{2013}'),
    ("mdash", '\u{2014}'),
    ("lsquo", '\u{2018}'),
    ("rsquo", '\u{2019}'),
    ("ldquo", '\u{201c}'),
    ("rdquo", '\u{201d}'),
    ("bull", '\u{2022}'),
    ("prime", '\u{2032}'),
    ("larr", '\u{2190}'),
    ("rarr", '\u{2192}'),
    ("minus", '\u{2212}'),
    ("le", '\u{2264}'),
    ("ge", '\u{2265}'),
];

fn width(text: &str) -> Cow<'_, str> {
    let affected = |c: char| matches!(u32::from(c), 0xfb00..=0xfb06 | 0xff01..=0xff5e | 0x3000);
    if !text.contains(affected) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if affected(c) {
            // The compatibility form of these is their plain spelling.
            out.extend(c.nfkc());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn quotes(text: &str) -> Cow<'_, str> {
    let straight = |c: char| match c {
        '\u{2018}'..='\u{201b}' => Some('\''),
        '\u{201c}'..='\u{201f}' => Some('"'),
        _ => None,
    };
    if !text.contains(|c| straight(c).is_some()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| straight(c).unwrap_or(c)).collect())
}

/// Characters without a meaning in running text.
fn is_junk(c: char) -> bool {
    matches!(u32::from(c),
        0x00..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f
        | 0x80..=0x84 | 0x86..=0x9f
        | 0x206a..=0x206f | 0xfeff | 0xfff9..=0xfffc | 0xe0001)
}

fn control(text: &str) -> Cow<'_, str> {
    let affected =
        |c: char| is_junk(c) || matches!(c, '\r' | '\u{c}' | '\u{1b}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    if !text.contains(affected) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            // A terminal's escape: ESC [ numbers letter.
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| c.is_ascii_digit() || *c == ';').is_some() {}
                    chars.next_if(char::is_ascii_alphabetic);
                }
            }
            c if is_junk(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn composition(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` as one would see it who took its UTF-8 for windows-1252.
    fn wrongly_read(text: &str) -> String {
        encoding_rs::WINDOWS_1252.decode_without_bom_handling(text.as_bytes()).0.into_owned()
    }

    #[test]
    fn wrongly_read_text_is_read_again() {
        for text in [
            "caf\u{e9} na\u{ef}ve \u{dc}bung",
            "\u{442}\u{435}\u{43a}\u{441}\u{442}",
            "\u{3b1}\u{3b2}\u{3b3} \u{65e5}\u{672c}\u{8a9e}",
            "5 \u{20ac} \u{2013} a\u{a0}b \u{1f600}",
        ] {
            let (once, twice) = (wrongly_read(text), wrongly_read(&wrongly_read(text)));
            assert_eq!(encoding(&once), text);
            assert_eq!(encoding(&twice), text, "twice");
            assert_eq!(encoding(text), text);
        }
        assert_eq!(repair(&wrongly_read("don\u{2019}t \u{201c}go\u{201d}")).text, "don't \"go\"");
    }

    #[test]
    fn text_that_is_meant_stays() {
        for text in [
            "\u{c9}cole, \u{c0} LA CARTE, CAF\u{c9}\u{201d} and caf\u{e9}\u{2026}",
            "\u{c2}me \u{e0} \u{ab}la\u{bb}",
            "Se\u{f1}or \u{bf}qu\u{e9}?",
            "\u{6f22}\u{5b57}",
            "AT\u{c3}O and \u{c3}",
        ] {
            assert_eq!(encoding(text), text);
        }
    }

    #[test]
    fn the_other_fixes() {
        let fix = |text: &str| repair(text).text;
        assert_eq!(
            fix("a &lt;b&gt; &#8217; &eacute; &#146; &unknown; & &;"),
            "a <b> \u{2019} \u{e9} \u{2019} &unknown; & &;".replace('\u{2019}', "'")
        );
        assert_eq!(fix("<p>&amp;</p>"), "<p>&amp;</p>");
        assert_eq!(fix("\u{fb01}n \u{ff21}\u{ff22}\u{3000}x"), "fin AB x");
        assert_eq!(fix("a\r\nb\rc\u{2028}d\u{0}\u{feff}e\u{1b}[31mred\u{1b}[0m"), "a\nb\nc\ndered");
        assert_eq!(fix("e\u{301}"), "\u{e9}");
        let clean = repair("plain text\n\twith tabs");
        assert_eq!((clean.text.as_str(), clean.fixes.len()), ("plain text\n\twith tabs", 0));
    }
}
