//! `report.html`: a run on one self-contained page: no script, no font, no image from elsewhere; light and dark.
//!
//! The page is a pure function of the run's data: the same run gives the same bytes.

mod chart;
mod evaluation;
mod layout;
mod measured;
mod schedule;

use std::fmt::Write;
use std::time::Duration;

use chart::{Chart, Scale, Series};

use crate::config::{Parallel, RunConfig};
use crate::metrics::{StepMetrics, Summary};
use crate::presets::grouped;
use crate::progress::duration;
use crate::timeline::Recorder;

/// A continuation that the trained model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it was given.
    pub prompt: String,
    /// What it wrote after it.
    pub continuation: String,
}

/// Everything that a report shows.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The run as resolved.
    pub config: &'a RunConfig,
    /// Its metrics, a line a step.
    pub metrics: &'a [StepMetrics],
    /// Its summary.
    pub summary: &'a Summary,
    /// Its samples.
    pub samples: &'a [Sample],
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        self.html_with(&[])
    }

    /// The page with a step as these ranks recorded it, beside the one that the schedule promises.
    pub fn html_with(&self, ranks: &[Recorder]) -> String {
        let title = format!("{} on {}", self.config.preset, self.summary.backend);
        let mut page = head(&title);
        self.tiles(&mut page);
        self.loss(&mut page);
        self.validations(&mut page);
        if let Some(evaluation) = evaluation::html(self.metrics) {
            section(&mut page, "Evaluation", &evaluation);
        }
        section(&mut page, "Samples", &self.sample_text());
        self.step_charts(&mut page);
        section(&mut page, "Layout", &layout::html(self.config));
        section(&mut page, "Schedule of a step", &schedule::html(self.config));
        if let Some(measured) = measured::html(ranks) {
            section(&mut page, "A step as measured", &measured);
        }
        let toml = format!("<pre class=\"config\">{}</pre>\n", escape(&self.config.to_toml()));
        section(&mut page, "Configuration", &toml);
        page.push_str(FOOT);
        page
    }

    fn tiles(&self, page: &mut String) {
        let (summary, model) = (self.summary, &self.config.model);
        let Parallel { tensor, pipeline, data, .. } = self.config.parallel;
        let pace = summary.tokens as f64 / summary.seconds;
        let pace = if pace.is_finite() { grouped(pace.round() as u64) } else { "–".into() };
        let time = Duration::try_from_secs_f64(summary.seconds).unwrap_or_default();
        page.push_str("<dl class=\"tiles\">\n");
        for (label, value, unit) in [
            ("validation loss", finite(summary.final_valid_loss), "nats a token"),
            ("compression", finite(summary.bits_per_byte), "bits a byte"),
            ("trained on", grouped(summary.tokens), "tokens"),
            ("in", duration(time), "wall clock"),
            ("at", pace, "tokens/s"),
            ("parameters", grouped(model.parameters()), ""),
            ("steps", grouped(summary.steps), ""),
            ("tensor × pipeline × data", format!("{tensor} × {pipeline} × {data}"), "ranks"),
        ] {
            let (value, unit) = (escape(&value), escape(unit));
            let _ = writeln!(page, "<div><dt>{label}</dt><dd>{value} <small>{unit}</small></dd></div>");
        }
        page.push_str("</dl>\n");
    }

    fn loss(&self, page: &mut String) {
        let uniform = (self.config.model.vocab as f64).ln();
        let mut series = self.noisy("training", |m| m.loss);
        series.push(Series::dotted("validation", "valid", self.points(|m| m.valid_loss)));
        let chart = |scale| Chart {
            label: "Loss by step",
            y_label: "nats a token",
            scale,
            size: chart::WIDE,
            from_zero: false,
            series: &series,
            reference: Some((
                uniform,
                format!("uniform over {} tokens: {uniform:.2}", self.config.model.vocab),
            )),
        };
        let body = format!(
            "{}<div class=\"toggle\">\n<input type=\"radio\" name=\"axis\" id=\"linear\" checked><label for=\"linear\">linear \
             steps</label>\n<input type=\"radio\" name=\"axis\" id=\"log\"><label for=\"log\">logarithmic steps</label>\n\
             <div class=\"on-linear\">{}</div>\n<div class=\"on-log\">{}</div>\n</div>\n",
            chart::legend(&series),
            chart(Scale::Linear).svg(),
            chart(Scale::Log).svg(),
        );
        section(page, "Loss", &body);
    }

    /// The validations as numbers, for those who cannot read them off the curve.
    fn validations(&self, page: &mut String) {
        let rows = self.metrics.iter().filter_map(|m| Some((m.step, m.loss, m.valid_loss?)));
        let mut table = String::from(
            "<details>\n<summary>Validations as a table</summary>\n<table>\n<tr><th>step</th><th>training \
             loss</th><th>validation loss</th></tr>\n",
        );
        for (step, loss, valid) in rows {
            let (step, loss, valid) = (grouped(step), finite(loss), finite(valid));
            let _ = writeln!(table, "<tr><td>{step}</td><td>{loss}</td><td>{valid}</td></tr>");
        }
        table.push_str("</table>\n</details>\n");
        page.push_str(&table);
    }

    fn step_charts(&self, page: &mut String) {
        let mut body = String::from("<div class=\"small\">\n");
        for (label, unit, series) in [
            ("Throughput", "tokens/s", self.noisy("throughput", |m| m.tokens_per_second)),
            ("Gradient norm", "before clipping", self.noisy("norm", |m| m.grad_norm)),
            ("Learning rate", "", vec![Series::line("rate", "train", self.points(|m| Some(m.lr)))]),
        ] {
            let (scale, size, series) = (Scale::Linear, chart::NARROW, &series[..]);
            let chart = Chart { label, y_label: unit, scale, size, from_zero: true, series, reference: None };
            let _ = writeln!(body, "<figure>\n<figcaption>{label}</figcaption>\n{}</figure>", chart.svg());
        }
        body.push_str("</div>\n");
        section(page, "Each step", &body);
    }

    fn sample_text(&self) -> String {
        if self.samples.is_empty() {
            return "<p class=\"note\">None were generated.</p>\n".into();
        }
        let block = |sample: &Sample| {
            let (prompt, text) = (escape(&sample.prompt), escape(&sample.continuation));
            format!("<pre class=\"sample\"><b>{prompt}</b>{text}</pre>\n")
        };
        let note = "<p class=\"note\">The prompt is bold; the rest is the model's.</p>\n";
        note.to_string() + &self.samples.iter().map(block).collect::<String>()
    }

    /// A value of each step, and where there are enough steps the mean over a fiftieth of them.
    fn noisy(&self, name: &str, value: impl Fn(&StepMetrics) -> f64) -> Vec<Series> {
        let points = self.points(|m| Some(value(m)));
        let window = points.len() / 50;
        if window < 2 {
            return vec![Series::line(name, "train", points)];
        }
        let mean =
            Series::line(&format!("{name}, mean of {window} steps"), "train", trailing_mean(&points, window));
        vec![Series::line(&format!("{name}, each step"), "train-raw", points), mean]
    }

    /// One value of each step that has it.
    fn points(&self, value: impl Fn(&StepMetrics) -> Option<f64>) -> Vec<(f64, f64)> {
        let point = |m: &StepMetrics| Some((m.step as f64, value(m)?));
        self.metrics.iter().filter_map(point).filter(|(_, y)| y.is_finite()).collect()
    }
}

const FOOT: &str = "</main>\n</body>\n</html>\n";

/// The beginning of a page.
fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>mtnlg: {title}</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n",
        include_str!("style.css"),
        title = escape(title),
    )
}

/// A page in the report's style: what stands under the title, and sections.
pub fn document(title: &str, top: &str, sections: &[(&str, String)]) -> String {
    let mut page = head(title) + top;
    sections.iter().for_each(|(heading, body)| section(&mut page, heading, body));
    page + FOOT
}

/// A step's schedule drawn, and where ranks recorded one, as they did.
pub fn drawn_step(config: &RunConfig, ranks: &[Recorder]) -> (String, Option<String>) {
    (schedule::html(config), measured::html(ranks))
}

fn section(page: &mut String, title: &str, body: &str) {
    let _ = write!(page, "<section>\n<h2>{title}</h2>\n{body}</section>\n");
}

/// Each point replaced by the mean of it and the `window - 1` before it, as far as there are.
fn trailing_mean(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    (0..points.len())
        .map(|end| {
            let last = &points[(end + 1).saturating_sub(window)..=end];
            (points[end].0, last.iter().map(|p| p.1).sum::<f64>() / last.len() as f64)
        })
        .collect()
}

fn finite(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "–".into() }
}

/// Text as HTML shows it, in an element or an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML has no way to write the other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
