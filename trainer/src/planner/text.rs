//! Predictions for a terminal.

use std::fmt::Write;

use super::Prediction;
use super::search::Found;
use crate::presets::grouped;

/// A prediction, label by label.
pub fn prediction(p: &Prediction) -> String {
    let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let seconds = |seconds: f64| match seconds {
        s if s >= 10.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{s:.3} s"),
        s => format!("{:.3} ms", 1e3 * s),
    };
    let efficiency = match &p.fitted_on {
        Some(row) => format!("efficiency {:.3}, fitted on {row}", p.stack_efficiency),
        None => format!("efficiency unknown, taken as {}", p.stack_efficiency),
    };
    let bytes = &p.worst.bytes;
    let time = &p.time;
    let mut lines: Vec<(&str, String)> = vec![
        (
            "cluster",
            format!(
                "{}, {} devices on {} nodes",
                p.cluster,
                grouped(p.devices as u64),
                grouped(p.nodes as u64)
            ),
        ),
        ("stack", format!("{}: {efficiency}", p.stack)),
        ("model", format!("{}, {} parameters", p.preset, grouped(p.parameters))),
        ("layout", layout(p)),
        (
            "batch",
            format!(
                "{} samples, {} microbatches of {} a replica",
                grouped(p.global_batch as u64),
                p.microbatches,
                p.micro_batch
            ),
        ),
        ("", String::new()),
        (
            "fits",
            match p.fits {
                true => format!(
                    "yes: {} of {} on the fullest rank, {} left",
                    gb(p.peak_bytes),
                    gb(p.memory_bytes),
                    gb(p.headroom_bytes.unsigned_abs())
                ),
                false => format!(
                    "no: {} of {} on the fullest rank, {} too much",
                    gb(p.peak_bytes),
                    gb(p.memory_bytes),
                    gb(p.headroom_bytes.unsigned_abs())
                ),
            },
        ),
        ("fullest rank", format!("rank {}, stage {}", p.worst.rank, p.worst.stage)),
        ("  parameters", gb(bytes.parameters)),
        ("  gradients", gb(bytes.gradients)),
        ("  optimizer", gb(bytes.optimizer)),
        ("  activations", gb(bytes.activations)),
        ("  workspace", gb(bytes.workspace)),
    ];
    if let Some(why) = &p.why_not {
        lines.push(("why not", why.clone()));
    }
    if !p.what_would.is_empty() {
        lines.push(("what would", p.what_would.join("; ")));
    }
    lines.extend([
        ("", String::new()),
        ("step", format!("{}, {} tokens/s", seconds(p.step_seconds), grouped(p.tokens_per_second as u64))),
        (
            "hardware FLOPs",
            format!("{:.1} TFLOP/s a device, {} of the peak", p.hardware_tflops_per_gpu, percent(p.hfu)),
        ),
        ("model FLOPs", format!("{:.1} TFLOP/s a device, MFU {}", p.model_tflops_per_gpu, percent(p.mfu))),
        ("bubble", format!("{} of the work", percent(p.bubble_fraction))),
        (
            "communication",
            format!(
                "{} exposed, {} hidden",
                seconds(p.communication_exposed_seconds),
                seconds(p.communication_hidden_seconds)
            ),
        ),
        ("a step's time", String::new()),
        ("  products", seconds(time.products)),
        ("  other kernels", seconds(time.other_kernels)),
        ("  optimizer", seconds(time.optimizer)),
        ("  launches", seconds(time.launches)),
        ("  tensor groups", seconds(time.tensor)),
        ("  replicas", seconds(time.data)),
        ("  messages", seconds(time.messages)),
        ("  waiting", seconds(time.waiting)),
        ("", String::new()),
        (
            "run",
            format!(
                "{:.1} B tokens in {:.1} days, ${}",
                p.tokens as f64 / 1e9,
                p.days,
                grouped(p.dollars.round() as u64)
            ),
        ),
        ("checkpoint", format!("{} in {}", gb(p.checkpoint_bytes), seconds(p.checkpoint_seconds))),
    ]);
    lines.iter().fold(String::new(), |mut text, (label, value)| {
        let _ = writeln!(text, "{}", format!("{label:<16}{value}").trim_end());
        text
    })
}

/// Layout, schedule and memory in one line.
pub fn layout(p: &Prediction) -> String {
    let recompute = match p.recompute {
        model::Recompute::None => "no recomputation",
        model::Recompute::Selective => "selective recomputation",
        model::Recompute::Full => "full recomputation",
    };
    let also = |yes: bool, words: &'static str| if yes { words } else { "" };
    format!(
        "{}, {}, {recompute}{}{}",
        p.layout,
        p.schedule,
        also(p.sequence_parallel, ", sequence parallel"),
        also(p.sharded_optimizer, ", ZeRO-1")
    )
}

/// The layouts that were found, best first, and why the others lost.
pub fn search(found: &Found) -> String {
    let mut text = format!(
        "{} layouts of {} devices: {} are possible, {} fit, {} were run whole\n\n",
        grouped(found.considered as u64),
        grouped(found.devices as u64),
        grouped(found.possible as u64),
        grouped(found.fitting as u64),
        found.ranked.len()
    );
    for (place, ranked) in found.ranked.iter().enumerate() {
        let p = &ranked.prediction;
        let _ = writeln!(
            text,
            "{:>3}. {:>9.3} s  {:>5.1} TFLOP/s  MFU {:>4.1}%  {:>5.1} GB  {}, micro-batch {}{}",
            place + 1,
            p.step_seconds,
            p.hardware_tflops_per_gpu,
            100.0 * p.mfu,
            p.peak_bytes as f64 / 1e9,
            layout(p),
            p.micro_batch,
            if ranked.why.is_empty() { String::new() } else { format!("\n     {}", ranked.why) }
        );
    }
    text.push_str("\nthe others\n");
    for (reason, count) in &found.lost {
        let _ = writeln!(text, "{:>6}  {reason}", grouped(*count as u64));
    }
    text
}
