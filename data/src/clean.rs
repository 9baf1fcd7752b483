//! `clean`: characters mended ([`repair`]), then what is too short or short and foreign dropped.
//!
//! | rule | dropped as |
//! |---|---|
//! | under `min_chars` characters | short |
//! | under `foreign_under` characters and not in `language` | short and not in the language |
//! | under 256 characters, and speaks of JavaScript | short and about JavaScript |
//!
//! Longer documents may be in any language: those of a crawl have been through `extract`, which knows pages.

pub mod repair;

use crate::extract::language::{Language, detect};
use crate::record::Record;
use crate::step::{Mark, Outcome, Place, Step};
use serde_json::{Value, json};

/// Documents of fewer characters that speak of JavaScript are what a browser without it is shown.
const JAVASCRIPT_UNDER: usize = 256;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanConfig {
    /// Documents of fewer characters are dropped.
    pub min_chars: usize,
    /// The language of the corpus.
    pub language: Language,
    /// Documents of fewer characters in another language are dropped.
    pub foreign_under: usize,
}

impl Default for CleanConfig {
    fn default() -> Self {
        CleanConfig { min_chars: 1, language: Language::ENGLISH, foreign_under: 512 }
    }
}

/// The step.
#[derive(Debug, Clone, Copy)]
pub struct Clean {
    /// The rules.
    pub config: CleanConfig,
}

impl Step for Clean {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn options(&self) -> Value {
        let CleanConfig { min_chars, language, foreign_under } = self.config;
        json!({"min_chars": min_chars, "language": language.code(), "foreign_under": foreign_under})
    }

    fn apply(&self, _: Place, mut record: Record) -> Outcome {
        let repaired = repair::repair(&record.text);
        let mut marks = Vec::new();
        for fix in &repaired.fixes {
            marks.push(Mark::new(false, fix.name(), &record.text));
        }
        record.text = repaired.text.trim().to_owned();
        let chars = record.text.chars().count();
        let reason = if chars < self.config.min_chars.max(1) {
            Some("short")
        } else if chars < self.config.foreign_under && detect(&record.text) != Some(self.config.language) {
            Some("short and not in the language")
        } else if chars < JAVASCRIPT_UNDER && record.text.to_lowercase().contains("javascript") {
            Some("short and about JavaScript")
        } else {
            None
        };
        match reason {
            Some(reason) => Outcome::drop(&record, reason),
            None => Outcome { kept: vec![record], marks },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str) -> Outcome {
        let place = Place { set: 0, part: 0, ordinal: 0 };
        Clean { config: CleanConfig::default() }.apply(place, Record::new("x", text))
    }

    #[test]
    fn rules() {
        let english = "The people of this town have always known that the river would come back.";
        let german = "Die Leute in dieser Stadt haben immer gewusst, dass der Fluss zurückkommt. ";
        let reason =
            |text: &str| apply(text).marks.iter().find(|mark| mark.dropped).map(|mark| mark.reason.clone());
        assert_eq!(reason(english), None);
        assert_eq!(reason(german).as_deref(), Some("short and not in the language"));
        assert_eq!(reason(&german.repeat(10)), None);
        assert_eq!(reason("\u{0}\u{1}").as_deref(), Some("short"));
        assert_eq!(
            reason("You will need to enable JavaScript in order to see this page.").as_deref(),
            Some("short and about JavaScript")
        );
    }

    #[test]
    fn what_was_mended_is_counted() {
        let outcome = apply(
            "The caf\u{c3}\u{a9} is open and they have all of the things that you would like &amp; more.",
        );
        assert!(outcome.kept[0].text.contains("caf\u{e9}") && outcome.kept[0].text.contains("like & more"));
        let reasons: Vec<&str> = outcome.marks.iter().map(|mark| mark.reason.as_str()).collect();
        assert_eq!(reasons, ["wrong encoding", "HTML entities"]);
    }
}
