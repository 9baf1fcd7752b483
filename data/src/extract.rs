//! `extract`: the main text of pages, and only in the language asked for. Records that are text already go
//! through the language rule alone.
//!
//! | method | text |
//! |---|---|
//! | `main` | of the element that marks the main content ([`crate::html`]); pages that mark none (redirects, frames) are dropped |
//! | `page` | the same, of `<article>` or `<body>` where nothing is marked |
//! | `justext` | the paragraphs that look like running text ([`justext`]): for crawls, whose pages mark nothing reliably |
//!
//! With `main` the language is what a page declares (text declares none and stays); with the others it is detected from the text ([`language`]).

pub mod justext;
pub mod language;

use crate::record::Record;
use crate::step::{Outcome, Place, Step};
use crate::{Error, Result, html};
use language::Language;
use serde_json::{Value, json};

/// How the text of a page is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// What the page marks.
    Main,
    /// What the page marks, else all of it.
    Page,
    /// What looks like running text.
    Justext,
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        match value {
            "main" => Ok(Method::Main),
            "page" => Ok(Method::Page),
            "justext" => Ok(Method::Justext),
            other => Err(Error::OutOfRange {
                name: "method",
                value: other.to_owned(),
                expected: "main, page or justext".to_owned(),
            }),
        }
    }
}

/// The step.
#[derive(Debug, Clone)]
pub struct Extract {
    /// How.
    pub method: Method,
    /// The language that is kept; `None`: any.
    pub language: Option<Language>,
}

impl Extract {
    fn detected(&self, mut record: Record) -> Outcome {
        let Some(wanted) = self.language else { return Outcome::keep(record) };
        match language::detect(&record.text) {
            Some(found) if found == wanted => {
                record.meta.insert("lang".to_owned(), found.code().into());
                Outcome::keep(record)
            }
            Some(found) => Outcome::drop(&record, format!("language {}", found.code())),
            None => Outcome::drop(&record, "language unknown"),
        }
    }
}

impl Step for Extract {
    fn name(&self) -> &'static str {
        "extract"
    }

    fn options(&self) -> Value {
        json!({"method": self.method, "language": self.language.map(Language::code)})
    }

    fn takes_pages(&self) -> bool {
        true
    }

    fn apply(&self, _: Place, record: Record) -> Outcome {
        if !record.html {
            return if self.method == Method::Main { Outcome::keep(record) } else { self.detected(record) };
        }
        let with = |text: String| Record { text, html: false, ..record.clone() };
        if self.method == Method::Justext {
            let text = justext::text(&record.text);
            return match text.is_empty() {
                true => Outcome::drop(&record, "no running text"),
                false => self.detected(with(text)),
            };
        }
        let page = html::parse(&record.text);
        if page.text.is_empty() {
            return Outcome::drop(&record, "no text");
        }
        if self.method == Method::Page {
            return self.detected(with(page.text));
        }
        if !page.has_main {
            return Outcome::drop(&record, "no main content is marked");
        }
        match (self.language, page.lang) {
            (Some(wanted), Some(declared)) if Language::of_tag(&declared) != Some(wanted) => {
                Outcome::drop(&record, format!("language {declared}"))
            }
            _ => Outcome::keep(with(page.text)),
        }
    }
}
