//! A step's schedule drawn: a row a stage, time to the right, from the simulator.

use std::fmt::Write;

use crate::config::RunConfig;
use crate::schedule::{Costs, Work, instructions, max_in_flight, simulate};

/// A backward pass has twice the matrix products of a forward pass.
const COSTS: Costs = Costs { forward: 1.0, backward: 2.0 };
/// Microbatches times stages that are drawn.
const CELLS: usize = 1200;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;

/// The drawing as HTML.
pub fn html(config: &RunConfig) -> String {
    let (stages, all) = (config.parallel.pipeline, config.microbatches());
    let schedule = config.parallel.schedule;
    let drawn = all.min((CELLS / stages).max(stages));
    let lists: Vec<_> = (0..stages).map(|stage| instructions(schedule, stages, drawn, stage)).collect();
    let Ok(timeline) = simulate(&lists, COSTS) else {
        unreachable!("the generator's schedules are property-tested against the simulator")
    };
    let bubble = 100.0 * (stages - 1) as f64 / all as f64;
    let held = (0..stages).map(|stage| max_in_flight(&instructions(schedule, stages, all, stage)));
    let held: Vec<String> = held.map(|n| n.to_string()).collect();
    let mut html = format!(
        "<p class=\"note\">{schedule}, {stages} stage{} and {all} microbatch{} a replica{}; a backward is drawn as two forwards. Waiting takes \
         (p − 1)/m = {bubble:.0}% on top of the work. Microbatches held at once, by stage: {}.</p>\n",
        if stages == 1 { "" } else { "s" },
        if all == 1 { "" } else { "es" },
        if drawn < all { format!(", of which {drawn} are drawn") } else { String::new() },
        held.join(", "),
    );
    html.push_str(
        "<p class=\"legend\"><span class=\"key forward\"></span>forward <span class=\"key backward\"></span>backward</p>\n",
    );
    let row = if stages <= 8 { 30.0 } else { 14.0 };
    let unit = (WIDTH - LEFT - 8.0) / timeline.makespan;
    let height = row * stages as f64 + 8.0;
    let _ = writeln!(
        html,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"When each stage runs which microbatch\">"
    );
    for (stage, spans) in timeline.stages.iter().enumerate() {
        let top = 4.0 + row * stage as f64;
        let middle = top + row / 2.0 + 3.0;
        let _ = writeln!(
            html,
            "<text class=\"tick end\" x=\"{}\" y=\"{middle:.1}\">stage {stage}</text>",
            LEFT - 8.0
        );
        let _ = writeln!(
            html,
            "<rect class=\"idle\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            top + 1.0,
            timeline.makespan * unit,
            row - 2.0
        );
        for span in spans {
            let (x, width) = (LEFT + span.start * unit, (span.end - span.start) * unit);
            let (class, name) = match span.work {
                Work::Forward => ("forward", "forward"),
                Work::Backward => ("backward", "backward"),
            };
            let _ = write!(
                html,
                "<rect class=\"{class}\" x=\"{:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{:.1}\"><title>{name} of microbatch {}</title></rect>",
                x + 0.5,
                top + 1.0,
                (width - 1.0).max(0.5),
                row - 2.0,
                span.microbatch
            );
            if width > 16.0 && row > 20.0 {
                let _ = write!(
                    html,
                    "<text class=\"on\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
                    x + width / 2.0,
                    span.microbatch
                );
            }
            html.push('\n');
        }
    }
    html.push_str("</svg>\n");
    html
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, RunConfig, defaults};

    #[test]
    fn every_pass_of_every_microbatch_is_drawn() {
        let sets = ["parallel.pipeline=4", "train.global_batch=32"];
        let layers = sets.iter().fold(Layers::default(), |layers, set| layers.set(set).unwrap());
        let html = super::html(&RunConfig::resolve(&layers).unwrap());
        assert_eq!(html.matches("class=\"forward\"").count(), 4 * 8);
        assert_eq!(html.matches("class=\"backward\"").count(), 4 * 8);
        assert!(html.contains("by stage: 4, 3, 2, 1") && html.contains("= 38%"), "{html}");
    }

    #[test]
    fn a_large_one_is_cut_and_says_so() {
        let html = super::html(&defaults::preset("mt-nlg-530b").unwrap());
        assert!(html.contains("240 microbatches a replica, of which 35 are drawn"));
        assert!(html.len() < 500_000, "{}", html.len());
    }
}
