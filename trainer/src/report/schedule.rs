//! A step's schedule drawn: a row a stage, time to the right, from the simulator.

use std::fmt::Write;

use crate::config::RunConfig;
use crate::schedule::{Costs, Pipeline, Schedule, Span, Timeline, Work, max_in_flight, simulate};

/// Each of the two gradients has as many matrix products as the forward pass.
const COSTS: Costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0 };
/// Units of all stages that are drawn: microbatches times chunks times stages.
const CELLS: usize = 1200;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
/// How strong the last of a stage's chunks is drawn; the first is at 1.
const FAINTEST: f64 = 0.35;
/// Below this strength a number is written in ink, not in the paper's colour.
const FAINT: f64 = 0.75;
/// The colour of the weights' gradients.
const STYLE: &str = "rect.weight { fill: var(--orange); } .key.weight { background: var(--orange); } svg .faint { fill: var(--ink); }";

/// The drawing as HTML.
pub fn html(config: &RunConfig) -> String {
    drawing(&Pipeline {
        schedule: config.parallel.schedule,
        stages: config.parallel.pipeline,
        chunks: config.parallel.virtual_stages,
        microbatches: config.microbatches(),
    })
}

fn drawing(pipeline: &Pipeline) -> String {
    let Pipeline { schedule, stages, chunks, microbatches: all } = *pipeline;
    let whole_groups = if schedule == Schedule::Interleaved { stages } else { 1 };
    let drawn = all.min((CELLS / (stages * chunks)).max(stages)) / whole_groups * whole_groups;
    let timeline = timeline(&Pipeline { microbatches: drawn, ..*pipeline });
    let mut html = note(pipeline, drawn);
    html.push_str(&legend(pipeline));
    let row = if stages <= 8 { 30.0 } else { 14.0 };
    let height = row * stages as f64 + 8.0;
    let _ = writeln!(
        html,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"When each stage runs which microbatch\">\n<style>{STYLE}</style>"
    );
    let scale = (WIDTH - LEFT - 8.0) / timeline.makespan;
    for (stage, spans) in timeline.stages.iter().enumerate() {
        let top = 4.0 + row * stage as f64;
        let _ = writeln!(
            html,
            "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">stage {stage}</text>\n\
             <rect class=\"idle\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            LEFT - 8.0,
            top + row / 2.0 + 3.0,
            top + 1.0,
            timeline.makespan * scale,
            row - 2.0
        );
        spans.iter().for_each(|span| draw(&mut html, span, chunks, scale, top, row));
    }
    html.push_str("</svg>\n");
    html
}

fn timeline(pipeline: &Pipeline) -> Timeline {
    let Ok(timeline) = simulate(pipeline, &pipeline.all_instructions(), COSTS) else {
        unreachable!("the generator's schedules are property-tested against the simulator")
    };
    timeline
}

/// What is drawn, how long it waits and what it holds, in words.
fn note(pipeline: &Pipeline, drawn: usize) -> String {
    let Pipeline { schedule, stages, chunks, microbatches: all } = *pipeline;
    let formula = match schedule {
        Schedule::GPipe | Schedule::OneFOneB => "(p − 1)/m = ",
        Schedule::Interleaved => "(p − 1)/(v m) = ",
        // With three equal times, and enough weight gradients to fill the gaps with.
        Schedule::ZbH1 if all >= stages => "(p − 1)/(3 m) = ",
        Schedule::ZbH1 => "",
    };
    let held = |stage| {
        let list = pipeline.instructions(stage);
        let chunk = |chunk| max_in_flight(&list, chunk).to_string();
        (0..chunks).map(chunk).collect::<Vec<_>>().join(" + ")
    };
    let plural = |n: usize, end: &'static str| if n == 1 { "" } else { end };
    format!(
        "<p class=\"note\">{schedule}, {stages} stage{}{} and {all} microbatch{} a replica{}; the gradients of the input and of the weights are each \
         drawn as long as a forward. Waiting takes {formula}{:.1}% on top of the work. Microbatches held at once, by stage{}: {}.</p>\n",
        plural(stages, "s"),
        if chunks == 1 { String::new() } else { format!(" of {chunks} chunks") },
        plural(all, "es"),
        if drawn < all { format!(", of which {drawn} are drawn") } else { String::new() },
        100.0 * timeline(pipeline).bubble(),
        if chunks == 1 { "" } else { ", chunk + chunk" },
        (0..stages).map(held).collect::<Vec<_>>().join(", "),
    )
}

fn legend(pipeline: &Pipeline) -> String {
    let kinds = match pipeline.schedule {
        Schedule::ZbH1 => &[Work::Forward, Work::BackwardInput, Work::BackwardWeight][..],
        _ => &[Work::Forward, Work::Backward],
    };
    let mut html = "<p class=\"legend\">".to_owned();
    for &work in kinds {
        let (class, name) = class_and_name(work);
        let _ = write!(html, "<span class=\"key {class}\"></span>{name} ");
    }
    if pipeline.chunks > 1 {
        for chunk in [0, pipeline.chunks - 1] {
            let strength = strength(chunk, pipeline.chunks);
            let _ = write!(
                html,
                "<span class=\"key forward\" style=\"opacity: {strength:.2}\"></span>chunk {chunk} "
            );
        }
    }
    html.push_str("</p>\n");
    html
}

fn class_and_name(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Forward => ("forward", "forward"),
        Work::Backward => ("backward", "backward"),
        Work::BackwardInput => ("backward", "gradient of the input"),
        Work::BackwardWeight => ("weight", "gradient of the weights"),
    }
}

/// How strong a chunk is drawn: the later, the fainter.
fn strength(chunk: usize, chunks: usize) -> f64 {
    1.0 - (1.0 - FAINTEST) * chunk as f64 / (chunks - 1).max(1) as f64
}

/// A span as a box, with the microbatch in it where it fits.
fn draw(html: &mut String, span: &Span, chunks: usize, scale: f64, top: f64, row: f64) {
    let (x, width) = (LEFT + span.start * scale, (span.end - span.start) * scale);
    let (class, name) = class_and_name(span.work);
    let strength = strength(span.unit.chunk, chunks);
    let (shade, of_chunk) = match chunks {
        1 => (String::new(), String::new()),
        _ => (format!(" fill-opacity=\"{strength:.2}\""), format!(", chunk {}", span.unit.chunk)),
    };
    let _ = write!(
        html,
        "<rect class=\"{class}\"{shade} x=\"{:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{:.1}\"><title>{name}, microbatch {}{of_chunk}</title></rect>",
        x + 0.5,
        top + 1.0,
        (width - 1.0).max(0.5),
        row - 2.0,
        span.unit.microbatch
    );
    if width > 16.0 && row > 20.0 {
        let _ = write!(
            html,
            "<text class=\"on{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            if strength < FAINT { " faint" } else { "" },
            x + width / 2.0,
            top + row / 2.0 + 3.0,
            span.unit.microbatch
        );
    }
    html.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, defaults};

    /// How many boxes of a class are drawn.
    fn boxes(html: &str, class: &str) -> usize {
        html.matches(&format!("<rect class=\"{class}\"")).count()
    }

    #[test]
    fn every_pass_of_every_microbatch_is_drawn() {
        let sets = ["parallel.pipeline=4", "train.global_batch=32"];
        let layers = sets.iter().fold(Layers::default(), |layers, set| layers.set(set).unwrap());
        let html = html(&RunConfig::resolve(&layers).unwrap());
        assert_eq!((boxes(&html, "forward"), boxes(&html, "backward"), boxes(&html, "weight")), (32, 32, 0));
        assert!(html.contains("by stage: 4, 3, 2, 1") && html.contains("(p − 1)/m = 37.5%"), "{html}");
    }

    #[test]
    fn weight_gradients_are_told_from_the_input_s() {
        let zb_h1 = Pipeline { schedule: Schedule::ZbH1, stages: 4, chunks: 1, microbatches: 8 };
        let html = drawing(&zb_h1);
        assert_eq!((boxes(&html, "forward"), boxes(&html, "backward"), boxes(&html, "weight")), (32, 32, 32));
        assert_eq!(html.matches("<title>gradient of the weights, microbatch 7<").count(), 4);
        assert!(html.contains("by stage: 4, 4, 4, 4") && html.contains("(p − 1)/(3 m) = 12.5%"), "{html}");
        assert!(html.contains("class=\"key weight\"") && html.contains("rect.weight {"));
        // The wait of 3 x 2 is shorter by one weight gradient: 5, on top of work of 6.
        let few = drawing(&Pipeline { microbatches: 2, ..zb_h1 });
        assert!(few.contains("Waiting takes 83.3%"), "{few}");
    }

    #[test]
    fn chunks_are_told_by_their_shade() {
        let html =
            drawing(&Pipeline { schedule: Schedule::Interleaved, stages: 2, chunks: 3, microbatches: 4 });
        assert_eq!((boxes(&html, "forward"), boxes(&html, "backward")), (24, 24));
        for shade in ["1.00", "0.68", "0.35"] {
            assert_eq!(html.matches(&format!("fill-opacity=\"{shade}\"")).count(), 16, "{shade}");
        }
        assert!(html.contains("<title>backward, microbatch 3, chunk 2<"));
        assert!(html.contains("(p − 1)/(v m) = 8.3%") && html.contains("4 + 3 + 2, "), "{html}");
        assert!(html.contains("style=\"opacity: 0.35\"></span>chunk 2"));
    }

    #[test]
    fn a_large_one_is_cut_and_says_so() {
        let html = html(&defaults::preset("mt-nlg-530b").unwrap());
        assert!(html.contains("240 microbatches a replica, of which 35 are drawn"));
        assert!(html.len() < 500_000, "{}", html.len());
        let interleaved =
            Pipeline { schedule: Schedule::Interleaved, stages: 7, chunks: 5, microbatches: 280 };
        let html = drawing(&interleaved);
        // 34 would be cells enough, 28 are whole groups.
        assert!(html.contains("of which 28 are drawn"), "{html}");
        assert!(html.contains("(p − 1)/(v m) = 0.4%"), "{html}");
    }
}
