//! Words of a continuation.

/// Words in small letters: letters with apostrophes and hyphens within.
pub(super) fn words(text: &str) -> Vec<String> {
    let inner = |c: char| c == '\'' || c == '’' || c == '-';
    text.split(|c: char| !(c.is_alphabetic() || inner(c)))
        .map(|word| word.trim_matches(inner).to_lowercase().replace('’', "'"))
        .filter(|word| !word.is_empty())
        .collect()
}

/// What is said before the sentence ends.
pub(super) fn first_sentence(text: &str) -> &str {
    text.split(['.', '!', '?', ';', ':', '\n']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_what_is_no_letter() {
        assert_eq!(
            words("She'd a well-known (old) ‘voice’, 3 times"),
            ["she'd", "a", "well-known", "old", "voice", "times"]
        );
        assert_eq!(first_sentence(" kind and quiet. He left"), " kind and quiet");
    }
}
