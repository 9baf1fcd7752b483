//! What the harness leaves to Python, repeated so that prompts are the same to the byte: text methods, literals, and the random module.

pub mod literal;
pub mod random;

/// `text.strip()`: without white space at both ends, Python's idea of it.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `char.isspace()`: Unicode's white space and the four separators U+001C to U+001F.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.capitalize()`: the first character in title case, all others in lower case.
#[must_use]
pub fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    let title = title_case(first);
    // Lower case is taken of the whole text: a final sigma knows what stands before it.
    let lower = text.to_lowercase();
    let head = first.to_lowercase().map(char::len_utf8).sum::<usize>();
    let rest = lower.get(head..).unwrap_or_default();
    format!("{title}{rest}")
}

/// A character's title case: its upper case, but for those that Unicode gives another one (Greek letters with an iota below are left out here).
fn title_case(c: char) -> String {
    match c {
        // Digraphs have letters of their own.
        '\u{1c4}'..='\u{1c6}' => "\u{1c5}".into(),
        '\u{1c7}'..='\u{1c9}' => "\u{1c8}".into(),
        '\u{1ca}'..='\u{1cc}' => "\u{1cb}".into(),
        '\u{1f1}'..='\u{1f3}' => "\u{1f2}".into(),
        '\u{149}' => "\u{2bc}N".into(),
        // Georgian has no title case.
        '\u{10d0}'..='\u{10ff}' => c.into(),
        _ => {
            let mut upper = c.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            // A ligature: its first letter alone is raised.
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

/// `text[start:end]`, by characters; both ends are cut to the text.
#[must_use]
pub fn slice(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end.saturating_sub(start)).collect()
}

/// `numpy.argmax`: the first of the greatest, or the first that is not a number.
#[must_use]
pub fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if values[best].is_nan() {
            break;
        }
        if value.is_nan() || *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_methods() {
        assert_eq!(strip("\u{1f} \u{3000}a b\n"), "a b");
        for (text, capital) in [
            ("a man iS", "A man is"),
            ("", ""),
            ("[title] How TO", "[title] how to"),
            ("éCOLE", "École"),
            ("ßA", "Ssa"),
            ("ﬁN", "Fin"),
            ("ǆ", "ǅ"),
            ("Οδυσσευς ΟΔΟΣ", "Οδυσσευς οδος"),
        ] {
            assert_eq!(capitalize(text), capital);
        }
        assert_eq!(slice("naïve café", 6, 99), "café");
        assert_eq!(slice("abc", 2, 1), "");
    }

    #[test]
    fn the_first_of_the_greatest() {
        assert_eq!(argmax(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(argmax(&[-2.0, f64::NAN, -1.0, f64::NAN]), 1);
        assert_eq!(argmax(&[f64::NEG_INFINITY; 2]), 0);
    }
}
