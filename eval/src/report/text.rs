//! The report as text.

use crate::metrics::Metric;
use crate::report::{Report, TaskResult};
use crate::tasks::{Measure, Task};

/// `no examples`, `1 example`, `15 examples`.
#[must_use]
pub fn shots(shots: usize) -> String {
    match shots {
        0 => "no examples".into(),
        1 => "1 example".into(),
        _ => format!("{shots} examples"),
    }
}

/// What a task measures, for `--formats`.
pub(crate) fn measures(task: &Task) -> String {
    let mut text = String::from(match task.measure {
        Measure::Word => "perplexity and acc of the word",
        Measure::Choice { normalised: false } => "acc",
        Measure::Choice { normalised: true } => "acc, acc_norm (log-likelihood by character)",
        Measure::Ratio => "acc by P(option | context) / P(option | \"Answer:\")",
    });
    if task.name == "hans" {
        text += ", and acc of each heuristic";
    }
    text
}

/// A metric's value: an accuracy in per cent, with its standard error.
pub(crate) fn value(metric: &Metric) -> String {
    let scale = if metric.higher_is_better { 100.0 } else { 1.0 };
    let number = |value: Option<f64>| match value {
        Some(value) if scale * value >= 1e6 => format!("{:.3e}", scale * value),
        Some(value) => format!("{:.2}", scale * value),
        None => "–".into(),
    };
    match metric.stderr {
        Some(_) => format!("{} ± {}", number(metric.value), number(metric.stderr)),
        None => number(metric.value),
    }
}

/// A result in one line.
#[must_use]
pub fn line(result: &TaskResult) -> String {
    metrics(&format!("{} with {}", result.task, shots(result.shots)), &result.metrics)
}

/// Metrics in one line, behind the name of what was measured.
#[must_use]
pub fn metrics(name: &str, metrics: &[Metric]) -> String {
    let metrics: Vec<String> =
        metrics.iter().map(|metric| format!("{} {}", metric.name, value(metric))).collect();
    format!("{name}: {}", metrics.join(", "))
}

/// Where the published number of a setting is missing.
pub(crate) fn published(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.2}"))
}

/// The whole report.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut rows = vec![
        ["task", "shots", "documents", "metric", "value ± s.e.", "MT-NLG 530B", "GPT-3 175B"]
            .map(String::from),
    ];
    for result in &report.results {
        for (i, metric) in result.metrics.iter().enumerate() {
            let own = |text: String| if i == 0 { text } else { String::new() };
            let beside = result.published.filter(|_| metric.name == result.headline);
            let row =
                beside.map(|row| [published(Some(row.mt_nlg)), published(row.gpt3)]).unwrap_or_default();
            let [mt_nlg, gpt3] = row;
            rows.push([
                own(result.task.clone()),
                own(result.shots.to_string()),
                if i == 0 || metric.documents != result.documents {
                    metric.documents.to_string()
                } else {
                    String::new()
                },
                metric.name.clone(),
                value(metric),
                mt_nlg,
                gpt3,
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = format!("{}\n\n", report.headline());
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 3 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for note in notes(report) {
        text += &format!("\n{note}");
    }
    text
}

/// What a reader of the numbers must know beside them.
pub(crate) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(limit) = report.limit {
        notes.push(format!("--limit {limit}: these are not the tasks' scores."));
    }
    for result in &report.results {
        let name = format!("{} with {}", result.task, shots(result.shots));
        if result.shortened > 0 {
            let (part, all) = (result.shortened, result.documents);
            notes.push(format!(
                "{name}: {part} of {all} documents have fewer examples, because more do not fit."
            ));
        }
        if result.cut > 0 {
            let (part, all) = (result.cut, result.requests);
            notes.push(format!("{name}: {part} of {all} requests are longer than the model's sequence and lost their beginning."));
        }
    }
    notes.push("Accuracies in per cent. Published: arXiv 2201.11990; what it used for normalisation and prompts may differ.".into());
    notes
}
