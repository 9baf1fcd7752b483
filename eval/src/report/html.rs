//! The report as one self-contained page: no script, no font, no image from elsewhere; light and dark. The same report gives the same bytes.

use crate::report::{Report, TaskResult, text};

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += &format!("<title>Evaluation: {}</title>\n<style>\n", escape(&report.subject.model));
    page += include_str!("style.css");
    page += "</style>\n</head>\n<body>\n<main>\n";
    page += &format!("<h1>Evaluation: {}</h1>\n", escape(&report.subject.model));
    page += &format!("<p class=\"what\">{}</p>\n", escape(&report.headline()));
    table(&mut page, report);
    page += "<h2>Beside what is published</h2>\n<p class=\"note\">Accuracy in per cent, of 100.</p>\n";
    for result in &report.results {
        bars(&mut page, result);
    }
    page += "<h2>What was run</h2>\n";
    for note in text::notes(report) {
        page += &format!("<p class=\"note\">{}</p>\n", escape(&note));
    }
    files(&mut page, report);
    page += "</main>\n</body>\n</html>\n";
    page
}

fn table(page: &mut String, report: &Report) {
    *page += "<div class=\"wide\"><table>\n<tr><th class=\"name\">task</th><th>shots</th><th>documents</th><th class=\"name\">metric</th>\
              <th>value ± s.e.</th><th>MT-NLG 530B</th><th>GPT-3 175B</th></tr>\n";
    for result in &report.results {
        for metric in &result.metrics {
            let beside = result.published.filter(|_| metric.name == result.headline);
            let (mt_nlg, gpt3) = match beside {
                Some(row) => (text::published(Some(row.mt_nlg)), text::published(row.gpt3)),
                None => Default::default(),
            };
            *page += &format!(
                "<tr><td class=\"name\">{}</td><td>{}</td><td>{}</td><td class=\"name\">{}</td><td>{}</td>\
                 <td>{mt_nlg}</td><td>{gpt3}</td></tr>\n",
                escape(&result.task),
                result.shots,
                metric.documents,
                escape(&metric.name),
                text::value(metric)
            );
        }
    }
    *page += "</table></div>\n";
}

fn bars(page: &mut String, result: &TaskResult) {
    let Some(metric) = result.metrics.iter().find(|metric| metric.name == result.headline) else { return };
    *page += "<div class=\"setting\">\n";
    let name = format!("{}, {}, {}", result.task, text::shots(result.shots), metric.name);
    let own = metric.value.map(|value| 100.0 * value);
    let mut bar = |class: &str, name: &str, value: Option<f64>, label: String| {
        let width = value.unwrap_or(0.0).clamp(0.0, 100.0);
        let name = escape(name);
        *page += &format!(
            "<div class=\"bar\"><span>{name}</span><span><i class=\"{class}\" style=\"width:{width:.2}%\"></i></span><span>{label}</span></div>\n"
        );
    };
    bar("own", &name, own, text::value(metric));
    if let Some(row) = result.published {
        bar("mt", "MT-NLG 530B", Some(row.mt_nlg), text::published(Some(row.mt_nlg)));
        if row.gpt3.is_some() {
            bar("gpt", "GPT-3 175B", row.gpt3, text::published(row.gpt3));
        }
    }
    *page += "</div>\n";
}

fn files(page: &mut String, report: &Report) {
    *page += "<div class=\"wide\"><table>\n<tr><th class=\"name\">task</th><th>shots</th><th class=\"name\">file</th><th class=\"name\">examples</th>\
              <th>requests</th><th class=\"name\">their BLAKE3</th></tr>\n";
    for result in &report.results {
        let examples = match &result.examples_file {
            Some(file) => format!("{file}, seed {}", report.seed),
            None => "–".into(),
        };
        *page += &format!(
            "<tr><td class=\"name\">{}</td><td>{}</td><td class=\"name\">{} ({} of {})</td><td class=\"name\">{}</td>\
             <td>{}</td><td class=\"name\">{}</td></tr>\n",
            escape(&result.task),
            result.shots,
            escape(&result.file),
            result.documents,
            result.documents_in_file,
            escape(&examples),
            result.requests,
            &result.requests_hash[..16.min(result.requests_hash.len())]
        );
    }
    *page += "</table></div>\n";
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
