//! Which language a text is in (by its script and trigrams), and the words that make English English.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use whatlang::Lang;

/// Characters that are looked at: more change no answer, and cost time.
const LOOKED_AT: usize = 2000;

/// A language, by its ISO 639 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language(Lang);

/// Two-letter codes of the languages that pages declare most.
const TWO_LETTERS: &[(&str, &str)] = &[
    ("ar", "ara"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("ko", "kor"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("nb", "nob"),
    ("nl", "nld"),
    ("no", "nob"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("th", "tha"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("vi", "vie"),
    ("zh", "cmn"),
];

impl Language {
    /// English.
    pub const ENGLISH: Language = Language(Lang::Eng);

    /// Its three-letter code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// The language of a tag such as `en-GB`; `None` for one that is not known.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or_default().trim().to_ascii_lowercase();
        let code =
            TWO_LETTERS.iter().find(|(two, _)| *two == primary).map_or(primary.as_str(), |(_, three)| three);
        Lang::from_code(code).map(Language)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Language {
    type Err = crate::Error;

    fn from_str(value: &str) -> crate::Result<Self> {
        Language::of_tag(value).ok_or_else(|| crate::Error::OutOfRange {
            name: "language",
            value: value.to_owned(),
            expected: "an ISO 639 code such as en or eng".to_owned(),
        })
    }
}

/// The language of a text; `None` where there is nothing to tell it by.
#[must_use]
pub fn detect(text: &str) -> Option<Language> {
    let end = text.char_indices().nth(LOOKED_AT).map_or(text.len(), |(at, _)| at);
    whatlang::detect(&text[..end]).map(|info| Language(info.lang()))
}

/// Whether a word is one of the function words that running English is full of, whatever its case and the marks around it.
#[must_use]
pub fn is_stop_word(word: &str) -> bool {
    static SET: LazyLock<HashSet<&str>> = LazyLock::new(|| STOP_WORDS.split_ascii_whitespace().collect());
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    if word.len() > 12 {
        return false;
    }
    let lower = word.to_lowercase().replace('\u{2019}', "'");
    SET.contains(lower.as_str())
}

/// Articles, pronouns, prepositions, conjunctions, auxiliaries, and the commonest adverbs and verbs of English.
const STOP_WORDS: &str = "
a an the this that these those such same other another each every either neither both all any some no none few many much more most less least several enough
i me my mine myself we us our ours ourselves you your yours yourself he him his himself she her hers herself it its itself they them their theirs themselves
one ones someone anyone everyone something anything everything nothing who whom whose which what when where why how whoever whatever whenever wherever
of in to for with on at by from up about into over after under between out against during without before around among through toward towards upon within along
across behind beyond but near off above below since until till per via down as than like unlike except despite inside outside onto throughout
and or nor so yet if because although though while whereas unless whether once then else
is am are was were be been being has have had having do does did done doing will would shall should can could may might must ought need
isn't aren't wasn't weren't hasn't haven't hadn't don't doesn't didn't won't wouldn't shouldn't can't couldn't cannot i'm you're he's she's it's we're they're
i've you've we've they've i'd you'd he'd she'd we'd they'd i'll you'll he'll she'll we'll they'll that's there's what's let's
not only also very just even still already too again ever never always often sometimes usually now here there today perhaps maybe almost quite rather really
well however therefore thus instead away back together first last next new own get got go going gone went come came make made take took taken say said says
see seen know known think thought use used find found give given want let put seem seems become became way time
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        let english = "The people of this town have always known that the river would come back one day.";
        let german =
            "Die Leute in dieser Stadt haben immer gewusst, dass der Fluss eines Tages zurückkommen würde.";
        assert_eq!(detect(english), Some(Language::ENGLISH));
        assert_eq!(detect(german), Language::of_tag("de-AT"));
        assert_eq!(detect("日本語のテキストはここにあります。"), Language::of_tag("ja"));
        assert_eq!(detect("12 345"), None);
        assert_eq!("eng".parse::<Language>().unwrap(), Language::ENGLISH);
        assert!("xx".parse::<Language>().is_err());
        assert!(TWO_LETTERS.iter().all(|(two, _)| Language::of_tag(two).is_some()));
    }

    #[test]
    fn stop_words() {
        assert!(is_stop_word("The") && is_stop_word("(they,") && is_stop_word("isn\u{2019}t"));
        assert!(!is_stop_word("river") && !is_stop_word(""));
    }
}
