//! The evaluation tasks of a run: what the last model answered, beside what is published, and the way there.

use std::fmt::Write;

use eval::metrics::headline;
use eval::report::PublishedRow;
use eval::tasks::{TASKS, Task};

use super::chart::{self, Chart, Scale, Series};
use super::escape;
use crate::metrics::{Evaluated, StepMetrics};
use crate::presets::grouped;

/// The section's body; nothing where nothing was asked.
pub fn html(metrics: &[StepMetrics]) -> Option<String> {
    let asked = || metrics.iter().filter(|step| !step.evaluation.is_empty());
    let last = asked().next_back()?;
    let mut html = table(last);
    html.push_str("<div class=\"small\">\n");
    for metric in last.evaluation.iter().filter(|metric| is_headline(metric)) {
        let points = asked().filter_map(|step| Some((step.step as f64, 100.0 * find(step, metric)?)));
        let name = name(metric);
        let series = [Series::dotted(&name, "valid", points.collect())];
        let published = published(metric).map(|row| (row.mt_nlg, format!("MT-NLG 530B: {:.2}", row.mt_nlg)));
        let chart = Chart {
            label: &name,
            y_label: "per cent",
            scale: Scale::Linear,
            size: chart::NARROW,
            from_zero: true,
            series: &series,
            reference: published,
        };
        let _ =
            writeln!(html, "<figure>\n<figcaption>{}</figcaption>\n{}</figure>", escape(&name), chart.svg());
    }
    html.push_str("</div>\n");
    Some(html)
}

/// Every metric of a step.
fn table(step: &StepMetrics) -> String {
    let mut table = format!(
        "<p class=\"note\">Of step {}. Accuracies in per cent. Published: arXiv 2201.11990; what it used for normalisation and prompts may differ.</p>\n\
         <table>\n<tr><th>task</th><th>examples</th><th>documents</th><th>metric</th><th>value ± s.e.</th>\
         <th>MT-NLG 530B</th><th>GPT-3 175B</th></tr>\n",
        grouped(step.step)
    );
    let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
    for metric in &step.evaluation {
        let scale = if metric.metric.starts_with("acc") { 100.0 } else { 1.0 };
        let scaled = |value: Option<f64>| number(value.map(|value| scale * value));
        let value = match metric.stderr {
            Some(_) => format!("{} ± {}", scaled(metric.value), scaled(metric.stderr)),
            None => scaled(metric.value),
        };
        let row = published(metric).filter(|_| is_headline(metric));
        let beside = row.map_or_else(Default::default, |row| [number(Some(row.mt_nlg)), number(row.gpt3)]);
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{value}</td><td>{}</td><td>{}</td></tr>",
            escape(&metric.task),
            metric.shots,
            grouped(metric.documents as u64),
            escape(&metric.metric),
            beside[0],
            beside[1]
        );
    }
    table + "</table>\n"
}

fn task(metric: &Evaluated) -> Option<&'static Task> {
    TASKS.iter().copied().find(|task| task.name == metric.task)
}

/// Whether published accuracies stand beside it.
fn is_headline(metric: &Evaluated) -> bool {
    task(metric).is_some_and(|task| headline(task.measure) == metric.metric)
}

fn published(metric: &Evaluated) -> Option<PublishedRow> {
    PublishedRow::of(task(metric)?, metric.shots)
}

fn name(metric: &Evaluated) -> String {
    let Evaluated { task, shots, metric, .. } = metric;
    format!("{task} with {}, {metric}", eval::report::text::shots(*shots))
}

/// The metric of that name in a step.
fn find(step: &StepMetrics, like: &Evaluated) -> Option<f64> {
    let same =
        |one: &&Evaluated| (&one.task, one.shots, &one.metric) == (&like.task, like.shots, &like.metric);
    step.evaluation.iter().find(same)?.value
}
