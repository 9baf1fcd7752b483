//! The text of an HTML page as its reader sees it.
//!
//! The page goes through html5ever, so that unclosed tags, entities and scripts are read as a browser reads them. Of the tree
//! only the main content is kept: `<main>`, else `<article>`, else `<body>`, without navigation, scripts, buttons, icons and
//! whatever mdBook and rustdoc add around or inside the text.
//!
//! ```
//! let text = data::html::text("<main><h1>Title</h1><p>Some <em>in</em>line\n text.</p><pre>a\n  b\n</pre></main>");
//! assert_eq!(text, "Title\n\nSome inline text.\n\na\n  b");
//! ```
//!
//! Invariants of the text: preformatted blocks keep every character but the last newline; elsewhere runs of white space are one space
//! or the separator of blocks; no line of prose begins or ends with a space; at most one empty line between blocks.

use ego_tree::iter::Edge;
use scraper::node::{Element, Node};
use scraper::{ElementRef, Html, Selector};
use std::sync::LazyLock;

static MAIN: LazyLock<[Selector; 3]> = LazyLock::new(|| {
    ["main", "article", "body"].map(|name| Selector::parse(name).expect("an element name is a selector"))
});

/// A page that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The `lang` attribute of the `<html>` element, if it has one.
    pub lang: Option<String>,
    /// Whether the page marks its main content by `<main>`. Redirects and frames do not.
    pub has_main: bool,
    /// The text of the main content; empty if it has none.
    pub text: String,
}

/// The text of a page; see [`parse`].
#[must_use]
pub fn text(html: &str) -> String {
    parse(html).text
}

/// Read a page. Never fails: whatever the bytes are, HTML parsing gives a tree.
#[must_use]
pub fn parse(html: &str) -> Page {
    let document = Html::parse_document(html);
    let [main, article, body] = &*MAIN;
    let marked = document.select(main).next();
    let root = marked.or_else(|| document.select(article).next()).or_else(|| document.select(body).next());
    Page {
        lang: document.root_element().attr("lang").map(str::to_owned),
        has_main: marked.is_some(),
        text: root.map(element_text).unwrap_or_default(),
    }
}

/// Elements whose contents are never text of the page.
const SKIPPED: &[&str] = &[
    "audio", "button", "canvas", "datalist", "dialog", "form", "head", "iframe", "input", "math", "nav",
    "noscript", "object", "script", "select", "style", "svg", "template", "textarea", "title", "video",
];

/// Classes of mdBook's and rustdoc's additions: tool buttons, icons, rule anchors of the Reference, links back from
/// footnotes, the diagrams drawn beside grammars, and the lines of a listing that the page hides.
const SKIPPED_CLASSES: &[&str] = &[
    "boring",
    "buttons",
    "copy-path",
    "fa-svg",
    "footnote-backref",
    "grammar-railroad",
    "nav-chapters",
    "rule-link",
    "sidebar",
    "src",
    "test-link",
    "tooltip",
];

fn is_skipped(element: &Element) -> bool {
    SKIPPED.contains(&element.name())
        || element.attr("hidden").is_some()
        || element.attr("aria-hidden") == Some("true")
        || element.classes().any(|class| SKIPPED_CLASSES.contains(&class))
}

/// How an element is set apart from what stands before and after it.
fn separation(name: &str) -> Option<Gap> {
    match name {
        "address" | "article" | "aside" | "blockquote" | "details" | "dl" | "figure" | "footer" | "h1"
        | "h2" | "h3" | "h4" | "h5" | "h6" | "header" | "hr" | "main" | "ol" | "p" | "pre" | "section"
        | "table" | "ul" => Some(Gap::Paragraph),
        "body" | "caption" | "dd" | "div" | "dt" | "figcaption" | "li" | "summary" | "tbody" | "tfoot"
        | "thead" | "tr" => Some(Gap::Line),
        "td" | "th" => Some(Gap::Cell),
        _ => None,
    }
}

/// White space that is owed before the next word, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Cell,
    Line,
    Paragraph,
}

struct Writer {
    text: String,
    gap: Gap,
    /// Depth of list items: blocks inside an item follow on the next line, without an empty one.
    items: usize,
}

impl Writer {
    fn owe(&mut self, gap: Gap) {
        let gap = if self.items > 0 { gap.min(Gap::Line) } else { gap };
        self.gap = self.gap.max(gap);
    }

    fn settle(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Cell => " | ",
                Gap::Line => "\n",
                Gap::Paragraph => "\n\n",
            });
        }
        self.gap = Gap::None;
    }

    fn inline(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                // A break opportunity is no character.
                '\u{200b}' | '\u{feff}' => {}
                c if c.is_whitespace() => self.owe(Gap::Space),
                c => {
                    self.settle();
                    self.text.push(c);
                }
            }
        }
    }

    fn verbatim(&mut self, text: &str) {
        if !text.is_empty() {
            self.settle();
            self.text.push_str(text);
        }
    }
}

fn element_text(root: ElementRef<'_>) -> String {
    let mut out = Writer { text: String::new(), gap: Gap::None, items: 0 };
    let mut skipped = 0usize;
    let mut pre: Option<(usize, String)> = None;
    // The edges of the tree, not recursion: a page may nest deeper than the stack.
    for edge in root.traverse() {
        match edge {
            Edge::Open(node) => match node.value() {
                Node::Element(element) => {
                    if skipped > 0 || (is_skipped(element) && node.id() != root.id()) {
                        skipped += 1;
                        continue;
                    }
                    if let Some((depth, listing)) = &mut pre {
                        *depth += 1;
                        if element.name() == "br" {
                            listing.push('\n');
                        }
                        continue;
                    }
                    match element.name() {
                        "pre" => pre = Some((0, String::new())),
                        "br" => out.owe(Gap::Line),
                        name => {
                            if let Some(gap) = separation(name) {
                                out.owe(gap);
                            }
                            if name == "li" {
                                out.items += 1;
                            }
                        }
                    }
                }
                Node::Text(text) if skipped == 0 => match &mut pre {
                    Some((_, listing)) => listing.push_str(text),
                    None => out.inline(text),
                },
                _ => {}
            },
            Edge::Close(node) => {
                let Node::Element(element) = node.value() else { continue };
                if skipped > 0 {
                    skipped -= 1;
                    continue;
                }
                match &mut pre {
                    Some((0, listing)) => {
                        let listing = std::mem::take(listing);
                        pre = None;
                        out.owe(Gap::Paragraph);
                        out.verbatim(trim_listing(&listing));
                        out.owe(Gap::Paragraph);
                    }
                    Some((depth, _)) => *depth -= 1,
                    None => {
                        if element.name() == "li" {
                            out.items = out.items.saturating_sub(1);
                        }
                        if let Some(gap) = separation(element.name()) {
                            out.owe(gap);
                        }
                    }
                }
            }
        }
    }
    out.text
}

/// A listing without the empty lines that hidden lines left at its ends.
fn trim_listing(listing: &str) -> &str {
    let listing = listing.trim_end();
    let start = listing
        .char_indices()
        .take_while(|(_, c)| c.is_whitespace())
        .filter(|(_, c)| *c == '\n')
        .last()
        .map_or(0, |(i, _)| i + 1);
    &listing[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_content() {
        let page = parse(
            "<!DOCTYPE html><html lang=en><body><nav>menu</nav><div>chrome</div>\
             <main><button>Run</button><p>Text</p><script>var x;</script><svg><text>icon</text></svg></main>\
             <nav>next</nav></body></html>",
        );
        assert_eq!(page, Page { lang: Some("en".into()), has_main: true, text: "Text".into() });
    }

    #[test]
    fn body_where_nothing_is_marked() {
        assert_eq!(text("<title>t</title>plain &lt;text&gt; &amp; more"), "plain <text> & more");
        assert!(!parse("<p>x").has_main);
        assert_eq!(text(""), "");
    }

    #[test]
    fn inline_elements_join_and_blocks_separate() {
        assert_eq!(
            text(
                "<main>\n<h2>A<a class=header href=#a></a></h2>\n<p>One <code>two</code>,\n<em>thr</em>ee\u{200b}.</p><p>Next</p></main>"
            ),
            "A\n\nOne two, three.\n\nNext"
        );
        assert_eq!(text("<main>a<br>b<br/> c</main>"), "a\nb\nc");
    }

    #[test]
    fn lists_and_tables() {
        assert_eq!(
            text(
                "<main><p>L:</p><ul>\n<li>a</li>\n<li><p>b</p><p>c</p><ol><li>d</li></ol></li>\n</ul><p>end</p></main>"
            ),
            "L:\n\na\nb\nc\nd\n\nend"
        );
        assert_eq!(
            text(
                "<main><table><thead><tr><th>k</th><th>v</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table></main>"
            ),
            "k | v\n1 | 2"
        );
    }

    #[test]
    fn listings_keep_their_lines_and_lose_hidden_ones() {
        let page = "<main><p>Code:</p><pre><div class=buttons><button>Copy</button></div><code class=language-rust>\
            <span class=boring>#![allow(unused)]\n</span><span class=boring>fn main() {\n</span>let a = 1;\n\n    let <b>b</b> = &amp;a;\n\
            <span class=boring>}\n</span></code></pre><p>After</p></main>";
        assert_eq!(text(page), "Code:\n\nlet a = 1;\n\n    let b = &a;\n\nAfter");
    }

    #[test]
    fn the_first_line_of_a_listing_keeps_its_indent() {
        assert_eq!(text("<main><pre>\n\n    a\n  b\n\n</pre></main>"), "    a\n  b");
    }

    #[test]
    fn deep_nesting_does_not_overflow() {
        let html = format!("<main>{}x", "<div>".repeat(10_000));
        assert_eq!(text(&html), "x");
    }
}
