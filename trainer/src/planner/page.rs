//! A prediction for a browser.

use crate::config::RunConfig;
use crate::planner::Prediction;
use crate::report::{document, drawn_step, escape};
use crate::timeline::Recorder;

/// One page without anything from elsewhere: the numbers, the memory of every stage, the schedule, and the step as it was simulated.
pub fn html(config: &RunConfig, prediction: &Prediction, recorders: &[Recorder]) -> String {
    let title = format!("{} on {}", prediction.preset, prediction.cluster);
    let tiles = [
        ("fits", if prediction.fits { "yes".to_owned() } else { "no".to_owned() }),
        ("step", format!("{:.3} s", prediction.step_seconds)),
        ("hardware", format!("{:.1} TFLOP/s a device", prediction.hardware_tflops_per_gpu)),
        ("MFU", format!("{:.1}%", 100.0 * prediction.mfu)),
        ("bubble", format!("{:.1}%", 100.0 * prediction.bubble_fraction)),
        (
            "fullest rank",
            format!(
                "{:.1} of {:.0} GB",
                prediction.peak_bytes as f64 / 1e9,
                prediction.memory_bytes as f64 / 1e9
            ),
        ),
        ("days", format!("{:.1}", prediction.days)),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(label, value)| format!("<div><dt>{label}</dt><dd>{}</dd></div>\n", escape(value)))
        .collect();
    let numbers = format!("<pre class=\"config\">{}</pre>\n", escape(&super::text::prediction(prediction)));
    let memory = memory(prediction);
    let (schedule, measured) = drawn_step(config, recorders);
    let mut sections =
        vec![("The numbers", numbers), ("Memory of each stage", memory), ("Schedule of a step", schedule)];
    if let Some(measured) = measured {
        sections.push(("A step as simulated", measured));
    }
    document(&title, &format!("<dl class=\"tiles\">\n{tiles}</dl>\n"), &sections)
}

fn memory(prediction: &Prediction) -> String {
    let mut table = "<table>\n<tr><th>stage</th><th>parameters</th><th>gradients</th><th>optimizer</th><th>activations</th><th>workspace</th><th>GB in all</th></tr>\n".to_owned();
    for (stage, bytes) in prediction.stages.iter().enumerate() {
        let parts = [bytes.parameters, bytes.gradients, bytes.optimizer, bytes.activations, bytes.workspace];
        let cells: String =
            parts.iter().map(|bytes| format!("<td>{:.2}</td>", *bytes as f64 / 1e9)).collect();
        let all = parts.iter().sum::<u64>() as f64 / 1e9;
        table.push_str(&format!("<tr><td>{stage}</td>{cells}<td>{all:.2}</td></tr>\n"));
    }
    table + "</table>\n"
}
