//! `report.html`: a build on one self-contained page, the same bytes for the same build.

use super::{Built, Recipe};
use crate::step::{Count, Manifest, Tally};
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8884}\
th:first-child,td:first-child{text-align:left}blockquote{margin:.3rem 0 .8rem;padding:.3rem .8rem;border-left:3px solid #8888;\
white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}summary{cursor:pointer}code{font-size:13px}";

/// The page.
pub(super) fn html(recipe: &Recipe, built: &Built) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>mtnlg data build</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<h1>Corpus</h1>\n"
    );
    result(&mut page, recipe, built);
    for (i, manifest) in built.steps.iter().enumerate() {
        step(&mut page, i + 1, manifest);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn result(page: &mut String, recipe: &Recipe, built: &Built) {
    let tokens: u64 = built.sets.iter().map(|set| set.tokens).sum();
    let weights: f64 = recipe.sets.iter().filter_map(|set| set.weight).sum();
    page.push_str("<table><tr><th>set<th>weight<th>documents<th>bytes of text<th>tokens</tr>\n");
    for (set, record) in recipe.sets.iter().zip(&built.sets) {
        let weight =
            set.weight.map_or(record.tokens as f64 / tokens.max(1) as f64, |weight| weight / weights);
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{:.2}%<td>{}<td>{}<td>{}</tr>",
            escape(&record.name),
            100.0 * weight,
            grouped(record.documents),
            grouped(record.bytes),
            grouped(record.tokens)
        );
    }
    page.push_str("</table>\n");
}

fn step(page: &mut String, number: usize, manifest: &Manifest) {
    let _ = writeln!(
        page,
        "<h2>{number}. {}</h2>\n<p><code>{}</code></p>",
        escape(&manifest.step),
        escape(&manifest.options.to_string())
    );
    for note in &manifest.notes {
        let _ = writeln!(page, "<p>{}</p>", escape(note));
    }
    page.push_str("<table><tr><th>set<th>documents in<th>out<th>bytes in<th>out<th>unreadable</tr>\n");
    for set in &manifest.sets {
        row(page, &set.name, &set.tally);
    }
    let all = manifest.tally();
    row(page, "all", &all);
    page.push_str("</table>\n");
    for (what, counts) in [("dropped", &all.dropped), ("changed", &all.changed)] {
        if counts.is_empty() {
            continue;
        }
        let _ = writeln!(page, "<table><tr><th>{what}<th>documents<th>bytes</tr>");
        for (reason, count) in counts {
            let Count { documents, bytes, .. } = count;
            let (documents, bytes) = (grouped(*documents), grouped(*bytes));
            let _ = writeln!(page, "<tr><td>{}<td>{documents}<td>{bytes}</tr>", escape(reason));
        }
        page.push_str("</table>\n");
        for (reason, count) in counts {
            let _ = writeln!(page, "<details><summary>{what}: {}</summary>", escape(reason));
            for sample in &count.samples {
                let (id, text) = (escape(&sample.id), escape(&sample.text));
                let _ = writeln!(page, "<code>{id}</code><blockquote>{text}</blockquote>");
            }
            page.push_str("</details>\n");
        }
    }
}

fn row(page: &mut String, name: &str, tally: &Tally) {
    let _ = writeln!(
        page,
        "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        escape(name),
        grouped(tally.documents_in),
        grouped(tally.documents_out),
        grouped(tally.bytes_in),
        grouped(tally.bytes_out),
        grouped(tally.bad)
    );
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
