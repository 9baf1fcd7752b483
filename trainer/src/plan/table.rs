//! Plans for a terminal: one column a run, then the bytes of each stage's ranks.

use std::fmt::Write;

use model::Recompute;

use super::{Plan, RankPlan};
use crate::presets::grouped;

/// The runs side by side under their headings, then what their ranks hold.
pub fn text(runs: &[(&str, &Plan)]) -> String {
    let mut lines: Vec<Vec<String>> =
        vec![[""].iter().chain(runs.iter().map(|(name, _)| name)).map(|s| s.to_string()).collect()];
    let columns: Vec<Vec<(&str, String)>> = runs.iter().map(|(_, plan)| rows(plan)).collect();
    for (i, (label, _)) in columns[0].iter().enumerate() {
        lines.push(
            std::iter::once(label.to_string()).chain(columns.iter().map(|rows| rows[i].1.clone())).collect(),
        );
    }
    let mut text = aligned(&lines, false);
    for (name, plan) in runs {
        let heading = if runs.len() > 1 { format!("{name}: a") } else { "a".into() };
        let _ = write!(text, "\n{heading} rank of each stage, MiB\n{}", aligned(&memory(plan), true));
    }
    text
}

/// What a run is, label by label.
fn rows(plan: &Plan) -> Vec<(&'static str, String)> {
    let Plan { model, .. } = plan;
    let also = |yes: bool, words: &str| if yes { format!(", {words}") } else { String::new() };
    let ramp = plan.batch_ramp;
    let ramp = match ramp.samples {
        0 => "none".into(),
        samples => format!(
            "{} + {} … {} over {} tokens",
            ramp.start,
            ramp.increment,
            plan.global_batch,
            short(samples as f64 * plan.seq_len as f64)
        ),
    };
    let recompute = match plan.recompute {
        Recompute::None => "none",
        Recompute::Selective => "selective",
        Recompute::Full => "full",
    };
    vec![
        ("preset", plan.preset.clone()),
        ("parameters", grouped(plan.parameters)),
        ("layers x hidden", format!("{} x {}", model.layers, grouped(model.hidden as u64))),
        ("heads x size", format!("{} x {}", model.heads, model.head_dim())),
        ("vocabulary", grouped(model.vocab as u64)),
        ("layout", plan.layout.clone()),
        ("ranks", grouped(plan.ranks as u64)),
        (
            "schedule",
            plan.schedule.clone()
                + &also(plan.virtual_stages > 1, &format!("{} chunks a stage", plan.virtual_stages)),
        ),
        ("precision", plan.precision.to_string()),
        ("recompute", recompute.to_string() + &also(plan.sequence_parallel, "sequence parallel")),
        ("optimizer", format!("AdamW{}", also(plan.sharded_optimizer, "sharded"))),
        (
            "global batch",
            format!("{} x {} tokens", grouped(plan.global_batch as u64), grouped(plan.seq_len as u64)),
        ),
        ("batch ramp", ramp),
        ("microbatches", format!("{} of {}", plan.microbatches, plan.micro_batch)),
        ("bubble", format!("{:.1}%", 100.0 * plan.bubble)),
        ("steps", grouped(plan.steps)),
        ("tokens", short(plan.tokens as f64)),
        ("tokens a parameter", format!("{:.3}", plan.tokens as f64 / plan.parameters as f64)),
        (
            "learning rate",
            format!(
                "{:e}, warm-up {}, cosine to {:.0}% at {}",
                plan.lr,
                short(plan.warmup_tokens as f64),
                100.0 * plan.min_lr_ratio,
                short(plan.decay_tokens as f64)
            ),
        ),
        ("evaluation", plan.evaluation.clone().unwrap_or_else(|| "none".into())),
        ("model FLOPs a step", format!("{:.3e}", plan.model_flops_per_step)),
        ("executed a step", format!("{:.3e}", plan.hardware_flops_per_step)),
        ("model FLOPs in all", format!("{:.3e}", plan.model_flops)),
        ("stage to stage", format!("{} bytes a microbatch", short(plan.pipeline_bytes_per_microbatch))),
        ("tensor group", format!("{} bytes a layer and microbatch", short(plan.tensor_bytes_per_layer))),
    ]
}

/// Its column in the stages' table, behind the classes of memory.
const EVALUATION: usize = 8;

/// The stages' table: ours, and beside our activations what Korthikanti et al. would keep of the same layers.
fn memory(plan: &Plan) -> Vec<Vec<String>> {
    let header = [
        "stage",
        "layers",
        "in flight",
        "parameters",
        "gradients",
        "optimizer",
        "activations",
        "workspace",
        "total",
        "published",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    let evaluated = plan.evaluation.is_some();
    if evaluated {
        lines[0].insert(EVALUATION, "evaluation".into());
    }
    for stage in &plan.stages {
        let mib = |bytes: f64| match bytes / f64::from(1 << 20) {
            small if small < 100.0 => format!("{small:.2}"),
            large => grouped(large.round() as u64),
        };
        let held = |stage: &RankPlan| -> f64 {
            let kept = stage.layers.iter().zip(&stage.in_flight).map(|(layers, n)| layers.len() * n);
            kept.sum::<usize>() as f64 * plan.published_activation_bytes_per_layer
        };
        let mut line = vec![
            stage.stage.to_string(),
            list(stage.layers.iter().map(|layers| match layers.len() {
                1 => layers.start.to_string(),
                _ => format!("{}-{}", layers.start, layers.end - 1),
            })),
            list(stage.in_flight.iter().map(usize::to_string)),
        ];
        let classes = [
            stage.parameters,
            stage.gradients,
            stage.optimizer,
            stage.activations,
            stage.workspace,
            stage.total(),
        ];
        line.extend(classes.map(|bytes| mib(bytes as f64)));
        if evaluated {
            line.insert(EVALUATION, mib(stage.evaluation as f64));
        }
        line.push(mib(held(stage)));
        lines.push(line);
    }
    lines
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

/// `270.0 B`, `3.5 M`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e12 => format!("{:.2} T", n / 1e12),
        n if n >= 1e9 => format!("{:.1} B", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Columns of equal width, the first to the left, the others to the left or to the right.
fn aligned(lines: &[Vec<String>], right: bool) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = match right && column > 0 {
                true => write!(row, "  {cell:>width$}"),
                false => write!(row, "{cell:<width$}  "),
            };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}
