//! A step as it was: what each rank did when, from the spans that the run recorded.

use std::fmt::Write;

use super::escape;
use crate::timeline::{Category, Recorder, Span};

/// Ranks that are drawn: of a larger world the first.
const RANKS: usize = 64;
/// Spans that are drawn of all ranks together.
const SPANS: usize = 6000;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;

/// The drawing as HTML: the last whole step that was recorded. Nothing where nothing was.
pub fn html(ranks: &[Recorder]) -> Option<String> {
    let rows: Vec<(&Recorder, Vec<Span>)> =
        ranks.iter().take(RANKS).map(|rank| (rank, rank.spans())).filter(|(_, s)| !s.is_empty()).collect();
    let (begin, end) = step(&rows)?;
    let within = |span: &&Span| span.end > begin && span.start < end;
    let waited: f64 = rows.iter().map(|(_, spans)| 1.0 - working(spans, begin, end) / (end - begin)).sum();
    let mut html = format!(
        "<p class=\"note\">One step as measured, {:.1} ms on {} rank{}. Ranks waited {:.0}% of it, for each other or for an instruction. Processors that \
         several ranks share stretch what they do at the same time.</p>\n<p class=\"legend\">",
        (end - begin) / 1e3,
        ranks.len(),
        if ranks.len() == 1 { "" } else { "s" },
        100.0 * waited / rows.len() as f64
    );
    for category in Category::ALL {
        if rows.iter().any(|(_, spans)| spans.iter().filter(within).any(|span| span.category == category)) {
            let name = category.name();
            let _ = write!(html, "<span class=\"key {name}\"></span>{name} ");
        }
    }
    let row = if rows.len() <= 8 { 30.0 } else { 14.0 };
    let height = row * rows.len() as f64 + 8.0;
    let _ = writeln!(
        html,
        "</p>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"What each rank did in a step\">"
    );
    let scale = (WIDTH - LEFT - 8.0) / (end - begin);
    for (i, (rank, spans)) in rows.iter().enumerate() {
        let top = 4.0 + row * i as f64;
        let _ = writeln!(
            html,
            "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">rank {}<title>{}</title></text>\n\
             <rect class=\"idle\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            LEFT - 8.0,
            top + row / 2.0 + 3.0,
            rank.rank(),
            escape(rank.label()),
            top + 1.0,
            (end - begin) * scale,
            row - 2.0
        );
        let mut outer_until = begin;
        for span in spans.iter().filter(within).take(SPANS / rows.len()) {
            // What lies within another span is drawn as a strip at its foot.
            let inner = span.end <= outer_until;
            outer_until = outer_until.max(span.end);
            let (y, tall) = if inner { (top + row * 0.62, row * 0.38 - 1.0) } else { (top + 1.0, row - 2.0) };
            let (start, stop) = (span.start.max(begin), span.end.min(end));
            let _ = writeln!(
                html,
                "<rect class=\"{}\" x=\"{:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{tall:.1}\"><title>{}</title></rect>",
                span.category.name(),
                LEFT + (start - begin) * scale,
                ((stop - start) * scale).max(0.2),
                title(span)
            );
        }
    }
    html.push_str("</svg>\n");
    Some(html)
}

/// From the end of the last update but one to that of the last, over all ranks; everything where there are not two.
fn step(rows: &[(&Recorder, Vec<Span>)]) -> Option<(f64, f64)> {
    let updates = |spans: &[Span]| {
        let ends = spans.iter().filter(|span| span.category == Category::Optimizer).map(|span| span.end);
        ends.collect::<Vec<_>>()
    };
    let last = |n: usize| {
        let of = |(_, spans): &(&Recorder, Vec<Span>)| updates(spans).iter().rev().nth(n).copied();
        rows.iter().map(of).collect::<Option<Vec<f64>>>()
    };
    let largest = |ends: Vec<f64>| ends.into_iter().fold(f64::MIN, f64::max);
    let smallest = |ends: Vec<f64>| ends.into_iter().fold(f64::MAX, f64::min);
    if let (Some(before), Some(after)) = (last(1), last(0)) {
        let (begin, end) = (smallest(before), largest(after));
        return (begin < end).then_some((begin, end));
    }
    let all = || rows.iter().flat_map(|(_, spans)| spans);
    let begin = all().map(|span| span.start).fold(f64::MAX, f64::min);
    let end = all().map(|span| span.end).fold(f64::MIN, f64::max);
    (begin < end).then_some((begin, end))
}

/// Microseconds between `begin` and `end` in which a rank computes or exchanges: its outermost spans but those that wait for another stage.
fn working(spans: &[Span], begin: f64, end: f64) -> f64 {
    let (mut busy, mut until) = (0.0, begin);
    for span in spans.iter().filter(|span| span.category != Category::Receive) {
        let (start, stop) = (span.start.max(until), span.end.min(end));
        if stop > start {
            busy += stop - start;
            until = stop;
        }
    }
    busy
}

fn title(span: &Span) -> String {
    let mut text = escape(span.name);
    for (name, value) in [("microbatch", span.args.microbatch), ("chunk", span.args.chunk)] {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value}");
        }
    }
    if let Some(bytes) = span.args.bytes {
        let _ = write!(text, ", {bytes} bytes");
    }
    let _ = write!(text, ": {:.2} ms", (span.end - span.start) / 1e3);
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::timeline::Args;

    /// Two ranks of three steps of 10 ms: forward 0–3, backward 5–9 with a collective within, update 9–10; the second rank waits from 3 to 5.
    fn ranks() -> Vec<Recorder> {
        let origin = Instant::now();
        let at = |us: u64| origin + Duration::from_micros(us);
        (0..2)
            .map(|rank| {
                let recorder = Recorder::new(rank, "stage <0>", origin, 100);
                for step in 0..3u64 {
                    let zero = step * 10_000;
                    let args = Args { microbatch: Some(7), bytes: Some(512), ..Args::default() };
                    let span = |category: Category, start, end| {
                        recorder.span(category, category.name(), at(zero + start), at(zero + end), args);
                    };
                    span(Category::Forward, 0, 3000);
                    if rank == 1 {
                        span(Category::Receive, 3000, 5000);
                    }
                    span(Category::Backward, 5000, 9000);
                    span(Category::Collective, 6000, 7000);
                    span(Category::Optimizer, 9000, 10_000);
                }
                recorder
            })
            .collect()
    }

    #[test]
    fn the_last_whole_step_is_drawn() {
        let html = html(&ranks()).unwrap();
        assert!(html.contains("10.0 ms on 2 ranks") && html.contains("waited 20% of it"), "{html}");
        let count = |class: &str| html.matches(&format!("<rect class=\"{class}\"")).count();
        assert_eq!([count("forward"), count("backward"), count("collective"), count("optimizer")], [2; 4]);
        assert_eq!((count("receive"), count("idle")), (1, 2));
        assert!(html.contains("backward, microbatch 7, 512 bytes: 4.00 ms"), "{html}");
        assert!(
            html.contains("stage &lt;0&gt;") && html.contains("key receive") && !html.contains("key send")
        );
    }

    #[test]
    fn without_two_updates_everything_is_drawn_and_without_spans_nothing() {
        let origin = Instant::now();
        let recorder = Recorder::new(0, "stage 0", origin, 9);
        assert!(html(std::slice::from_ref(&recorder)).is_none());
        recorder.span(
            Category::Forward,
            "forward",
            origin,
            origin + Duration::from_millis(2),
            Args::default(),
        );
        let html = html(&[recorder]).unwrap();
        assert!(html.contains("2.0 ms on 1 rank.") && html.contains("waited 0%"), "{html}");
    }
}
