//! A report as one page that needs nothing else.

use std::fmt::Write;

use super::report::{Record, Report, Status};

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.4em}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.2em .5em;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.92em;word-break:break-all}
.pass{color:#176c2e}.unsupported,.expected_fail{color:#8a6100}.fail,.unexpected_pass,.crash,.timeout{color:#b00020;font-weight:600}
.bar{display:flex;height:1em;border-radius:3px;overflow:hidden;margin:.6em 0}.bar span{display:block}
input{font:inherit;width:28em;max-width:100%;padding:.2em .4em}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}.pass{color:#6c6}}";

/// Narrows the table to the ids that hold what is typed.
const SCRIPT: &str = "const q=document.getElementById('q');q.oninput=()=>{for(const r of document.querySelectorAll('tbody.cases tr'))r.hidden=!r.textContent.includes(q.value)}";

fn class(status: Status) -> String {
    status.name().replace(' ', "_")
}

fn row(case: &Record) -> String {
    let worst = case.worst.as_ref().map_or(String::new(), |worst| {
        format!(
            "{}[{}] = {}, expected {}, limit {}",
            worst.operand, worst.index, worst.observed, worst.expected, worst.limit
        )
    });
    let number =
        |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
    let small = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1e}"));
    format!(
        "<tr><td><code>{}</code></td><td class=\"{}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td><td>{}</td></tr>\n",
        escaped(&case.id),
        class(case.status),
        case.status.name(),
        number(case.ratio, 3),
        small(case.nmse),
        case.seconds,
        escaped(case.reason.as_deref().unwrap_or(&worst)),
    )
}

/// The page. Cases that are wrong come first, then those nearest to their limits.
pub fn page(report: &Report) -> String {
    let mut cases: Vec<&Record> = report.cases.iter().collect();
    let order = |case: &&Record| (!case.status.is_bad(), -(case.ratio.unwrap_or(0.0) * 1e6) as i64);
    cases.sort_by_key(order);
    let mut bar = String::new();
    for (status, colour) in Status::ALL
        .into_iter()
        .zip(["#2a9d4a", "#d32f2f", "#c9a227", "#e0b040", "#d32f2f", "#8e0000", "#8e0000"])
    {
        let count = report.cases.iter().filter(|case| case.status == status).count();
        let share = 100.0 * count as f64 / report.total.max(1) as f64;
        let _ = write!(
            bar,
            "<span style=\"width:{share:.3}%;background:{colour}\" title=\"{count} {}\"></span>",
            status.name()
        );
    }
    let rows: String = cases.into_iter().map(row).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Conformance of {backend}</title><style>{STYLE}</style>\n<h1>Conformance of {backend}</h1>\n<p><b>{headline}</b></p>\
         <div class=\"bar\">{bar}</div>\n<p>{tier:?} tier, {seconds:.1} s. The ratio is the worst element's error over its limit.</p>\
         <p><input id=\"q\" placeholder=\"ids that hold …\"></p>\n\
         <table><thead><tr><th>case</th><th>status</th><th>ratio</th><th>NMSE</th><th>seconds</th><th>worst element, or why</th></tr></thead>\
         <tbody class=\"cases\">\n{rows}</tbody></table><script>{SCRIPT}</script></html>\n",
        backend = escaped(&report.backend),
        headline = escaped(&report.headline()),
        tier = report.tier,
        seconds = report.seconds,
    )
}
