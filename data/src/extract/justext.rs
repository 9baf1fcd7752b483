//! The paragraphs of a page that look like running text: the algorithm of jusText (Pomikálek 2011), for English.
//!
//! A paragraph is first judged by itself. One with many links or a copyright sign is bad; a long one with many function words is good; between them lie *near good*
//! and, for those too brief to tell, *short*. Then by context: a short or near good paragraph becomes what its neighbours are, and a heading stays
//! if good text follows close by.

use super::language::is_stop_word;
use ego_tree::iter::Edge;
use scraper::Html;
use scraper::node::Node;

/// Most characters of links among a paragraph's.
const MAX_LINK_DENSITY: f64 = 0.2;
/// Characters below which a paragraph is short, and above which it may be good.
const LENGTH_LOW: usize = 70;
const LENGTH_HIGH: usize = 200;
/// Share of function words from which a paragraph is near good, and good.
const STOP_WORDS_LOW: f64 = 0.30;
const STOP_WORDS_HIGH: f64 = 0.32;
/// Characters between a heading and the good text that keeps it.
const MAX_HEADING_DISTANCE: usize = 200;

/// What a paragraph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Running text.
    Good,
    /// Likely running text.
    NearGood,
    /// Too brief to tell.
    Short,
    /// Boilerplate.
    Bad,
}

/// A paragraph of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// Its text; runs of white space are one space.
    pub text: String,
    /// Whether it is a heading.
    pub heading: bool,
    /// What it is by itself.
    pub alone: Class,
    /// What it is in its place.
    pub class: Class,
}

/// The running text of a page: its good paragraphs, an empty line between them. Empty if there is none.
#[must_use]
pub fn text(html: &str) -> String {
    let paragraphs = paragraphs(html);
    let good: Vec<&str> =
        paragraphs.iter().filter(|p| p.class == Class::Good).map(|p| p.text.as_str()).collect();
    good.join("\n\n")
}

/// All paragraphs of a page with what they are.
#[must_use]
pub fn paragraphs(html: &str) -> Vec<Paragraph> {
    let mut paragraphs: Vec<Paragraph> = cut(html)
        .into_iter()
        .map(|block| {
            let alone = block.class();
            Paragraph { text: block.text, heading: block.heading, alone, class: alone }
        })
        .collect();
    judge_in_context(&mut paragraphs);
    paragraphs
}

const SKIPPED: &[&str] = &[
    "audio", "button", "canvas", "embed", "form", "head", "iframe", "input", "math", "noscript", "object",
    "option", "script", "select", "style", "svg", "template", "textarea", "video",
];

fn breaks(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "caption"
            | "center"
            | "col"
            | "colgroup"
            | "dd"
            | "details"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hr"
            | "legend"
            | "li"
            | "main"
            | "nav"
            | "ol"
            | "p"
            | "pre"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
    )
}

fn is_heading(name: &str) -> bool {
    matches!(name, "h1" | "h2" | "h3" | "h4" | "h5" | "h6")
}

#[derive(Default)]
struct Block {
    text: String,
    heading: bool,
    linked: usize,
    space: bool,
}

impl Block {
    fn push(&mut self, text: &str, linked: bool) {
        for c in text.chars() {
            match c {
                '\u{200b}' | '\u{feff}' => {}
                c if c.is_whitespace() => self.space = true,
                c => {
                    if self.space && !self.text.is_empty() {
                        self.text.push(' ');
                        self.linked += usize::from(linked);
                    }
                    self.space = false;
                    self.text.push(c);
                    self.linked += usize::from(linked);
                }
            }
        }
    }

    fn class(&self) -> Class {
        let length = self.text.chars().count();
        if self.linked as f64 > MAX_LINK_DENSITY * length as f64 || self.text.contains('\u{a9}') {
            return Class::Bad;
        }
        if length < LENGTH_LOW {
            return if self.linked > 0 { Class::Bad } else { Class::Short };
        }
        let (mut words, mut stops) = (0usize, 0usize);
        for word in self.text.split_whitespace() {
            words += 1;
            stops += usize::from(is_stop_word(word));
        }
        let density = stops as f64 / words.max(1) as f64;
        match density {
            d if d >= STOP_WORDS_HIGH && length > LENGTH_HIGH => Class::Good,
            d if d >= STOP_WORDS_LOW => Class::NearGood,
            _ => Class::Bad,
        }
    }
}

fn cut(html: &str) -> Vec<Block> {
    let document = Html::parse_document(html);
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let (mut skipped, mut links, mut headings) = (0usize, 0usize, 0usize);
    let mut after_break = false;
    let mut end = |block: &mut Block, heading: bool| {
        let whole = std::mem::take(block);
        block.heading = heading;
        if !whole.text.is_empty() {
            blocks.push(whole);
        }
    };
    // The edges of the tree, not recursion: a page may nest deeper than the stack.
    for edge in document.tree.root().traverse() {
        match edge {
            Edge::Open(node) => match node.value() {
                Node::Element(element) => {
                    let name = element.name();
                    if skipped > 0 || SKIPPED.contains(&name) {
                        skipped += 1;
                        continue;
                    }
                    links += usize::from(name == "a");
                    headings += usize::from(is_heading(name));
                    // Two line breaks in a row part paragraphs; one is a space.
                    let second_break = name == "br" && after_break;
                    if breaks(name) || second_break {
                        end(&mut block, headings > 0);
                    }
                    after_break = name == "br" && !second_break;
                    block.space |= name == "br";
                }
                Node::Text(text) if skipped == 0 => {
                    after_break &= text.trim().is_empty();
                    block.push(text, links > 0);
                }
                _ => {}
            },
            Edge::Close(node) => {
                let Node::Element(element) = node.value() else { continue };
                if skipped > 0 {
                    skipped -= 1;
                    continue;
                }
                let name = element.name();
                links -= usize::from(name == "a");
                headings -= usize::from(is_heading(name));
                if breaks(name) {
                    end(&mut block, headings > 0);
                }
            }
        }
    }
    end(&mut block, false);
    blocks
}

/// The class of the nearest paragraph before or after that is no short one (nor, with `sure`, a near good one); bad at the ends.
fn neighbour(classes: &[Class], mut order: impl Iterator<Item = usize>, sure: bool) -> Class {
    let decided = |class: Class| class != Class::Short && !(sure && class == Class::NearGood);
    order.find(|&i| decided(classes[i])).map_or(Class::Bad, |i| classes[i])
}

fn judge_in_context(paragraphs: &mut [Paragraph]) {
    let n = paragraphs.len();
    let lengths: Vec<usize> = paragraphs.iter().map(|p| p.text.chars().count()).collect();
    let mut classes: Vec<Class> = paragraphs.iter().map(|p| p.alone).collect();
    // Whether a good paragraph follows a heading closely.
    let leads = |classes: &[Class], i: usize| {
        let mut distance = 0;
        for j in i + 1..n {
            if distance > MAX_HEADING_DISTANCE {
                return false;
            }
            if classes[j] == Class::Good {
                return true;
            }
            distance += lengths[j];
        }
        false
    };
    for i in 0..n {
        if paragraphs[i].heading && classes[i] == Class::Short && leads(&classes, i) {
            classes[i] = Class::NearGood;
        }
    }
    let before = classes.clone();
    for i in 0..n {
        if before[i] != Class::Short {
            continue;
        }
        let [left, right] = [true, false]
            .map(|sure| [neighbour(&before, (0..i).rev(), sure), neighbour(&before, i + 1..n, sure)]);
        classes[i] = match left {
            [Class::Good, Class::Good] => Class::Good,
            [Class::Bad, Class::Bad] => Class::Bad,
            // One good, one bad: near good text on the side of the bad one decides.
            [Class::Bad, _] if right[0] == Class::NearGood => Class::Good,
            [_, Class::Bad] if right[1] == Class::NearGood => Class::Good,
            _ => Class::Bad,
        };
    }
    let before = classes.clone();
    for i in 0..n {
        if before[i] == Class::NearGood {
            let sides = [neighbour(&before, (0..i).rev(), true), neighbour(&before, i + 1..n, true)];
            classes[i] = if sides == [Class::Bad, Class::Bad] { Class::Bad } else { Class::Good };
        }
    }
    for i in 0..n {
        let p = &paragraphs[i];
        if p.heading && classes[i] == Class::Bad && p.alone != Class::Bad && leads(&classes, i) {
            classes[i] = Class::Good;
        }
    }
    for (paragraph, class) in paragraphs.iter_mut().zip(classes) {
        paragraph.class = class;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "It was the best of times for the people who had come to the city in order to see what there was to be seen, and it \
        was also the worst of times for those of them who did not have the means to stay for as long as they would have liked to.";

    #[test]
    fn boilerplate_goes_and_text_stays() {
        let page = format!(
            "<html><head><title>t</title></head><body><ul><li><a href=/>Home</a><li><a href=/a>About us and our partners everywhere</a></ul>\
             <h1>Two cities</h1><p>{LONG}</p><p>So it was.</p><p>{LONG}</p>\
             <div>Share <a href=x>Tweet</a> <a href=y>Mail</a></div><p>\u{a9} 2020 the company that made this page</p>\
             <script>var it = 'was the best';</script></body></html>"
        );
        assert_eq!(text(&page), format!("Two cities\n\n{LONG}\n\nSo it was.\n\n{LONG}"));
    }

    #[test]
    fn context_decides_the_short_ones() {
        let class = |page: &str| paragraphs(page).iter().map(|p| p.class).collect::<Vec<_>>();
        use Class::{Bad, Good};
        assert_eq!(class(&format!("<p>{LONG}<p>So.<p>{LONG}")), [Good, Good, Good]);
        assert_eq!(class(&format!("<p>{LONG}<p>So.")), [Good, Bad]);
        let link = "<p><a href=x>a link that is rather long</a>";
        assert_eq!(class(&format!("{link}<p>So.{link}")), [Bad, Bad, Bad]);
        // A paragraph in the middle: long enough, too brief to be good by itself.
        let near = "It is in the middle of the two of them, and so it is as good as they are.";
        assert_eq!(class(&format!("<p>{near}")), [Bad]);
        assert_eq!(class(&format!("<p>{LONG}<p>{near}<p>So.")), [Good, Good, Bad]);
    }

    #[test]
    fn words_without_function_words_are_no_text() {
        let list = "alpha beta gamma delta epsilon ".repeat(10);
        assert_eq!(text(&format!("<p>{list}</p>")), "");
        assert_eq!(text(&format!("<p>{LONG}<br><br>{list}")), LONG);
    }
}
