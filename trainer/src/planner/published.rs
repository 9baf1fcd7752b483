//! Predictions beside published runs (`configs/published.toml`), and the one number of each stack that is fitted on one of them.

use std::fmt::Write;

use backend_sim::Stack;
use serde::Deserialize;

use super::{Prediction, predict};
use crate::config::{Layers, RunConfig};
use crate::plan::{formulas, sizes};
use crate::rehearse::Place;
use crate::{Error, Result};

/// The machine that all of them ran on.
const CLUSTER: &str = "selene";

/// A published run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name here.
    pub id: String,
    /// Where it was published.
    pub source: String,
    /// The software.
    pub stack: String,
    /// Whether the stack was fitted on it.
    #[serde(default)]
    pub fit: bool,
    /// Whether its figures were written down from memory.
    #[serde(default)]
    pub recalled: bool,
    /// Published seconds a step.
    pub step_seconds: Option<f64>,
    /// Published hardware TFLOP/s a device.
    pub hardware_tflops: Option<f64>,
    /// Published model FLOPs over the peak.
    pub mfu: Option<f64>,
    /// The configuration, over the preset `mt-nlg-530b`.
    pub set: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    row: Vec<Row>,
}

/// Every published row.
///
/// # Errors
/// None for the file that comes with the program.
pub fn rows() -> Result<Vec<Row>> {
    let rows: Result<Rows, _> = toml::from_str(include_str!("../../../configs/published.toml"));
    rows.map(|rows| rows.row).map_err(|error| Error::other(format!("published.toml: {error}")))
}

impl Row {
    /// The configuration that it ran.
    ///
    /// # Errors
    /// None for the rows that come with the program.
    pub fn config(&self) -> Result<RunConfig> {
        let layers = Layers::default().preset("mt-nlg-530b");
        let layers = layers.set("train.batch_ramp={start=0,increment=0,samples=0}")?;
        RunConfig::resolve(&self.set.iter().try_fold(layers, |layers, set| layers.set(set))?)
    }

    /// Seconds a step, as published or as they follow from the published FLOP/s.
    ///
    /// # Errors
    /// A row without either.
    pub fn seconds(&self, config: &RunConfig) -> Result<f64> {
        let from_flops = |tflops: f64| {
            let (sizes, batch) = (sizes(config), config.train.global_batch as f64);
            let flops = formulas::hardware_flops(&sizes, batch, config.parallel.recompute);
            flops / (tflops * 1e12 * config.layout().world_size() as f64)
        };
        let seconds = self.step_seconds.or(self.hardware_tflops.map(from_flops));
        seconds.ok_or_else(|| Error::other(format!("{}: neither seconds nor FLOP/s", self.id)))
    }
}

/// A row's prediction beside what was published.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The row.
    pub row: Row,
    /// The configuration.
    pub config: RunConfig,
    /// Published seconds a step.
    pub seconds: f64,
    /// What we say.
    pub prediction: Prediction,
    /// Worst rank's bytes by the published formulas: 20 a parameter, and KOR's activations.
    pub formula_bytes: f64,
}

impl Compared {
    /// Predicted over published seconds, less 1.
    pub fn error(&self) -> f64 {
        self.prediction.step_seconds / self.seconds - 1.0
    }

    /// Predicted over the formula's bytes, less 1.
    pub fn memory_error(&self) -> f64 {
        self.prediction.peak_bytes as f64 / self.formula_bytes - 1.0
    }
}

/// Predicts a row on its stack.
///
/// # Errors
/// As [`predict()`].
pub fn compare(row: &Row) -> Result<Compared> {
    let (config, place) = (row.config()?, Place::load(CLUSTER, &row.stack)?);
    let prediction = predict(&config, &place)?;
    let (seconds, formula_bytes) = (row.seconds(&config)?, formula_bytes(&config));
    Ok(Compared { row: row.clone(), config, seconds, prediction, formula_bytes })
}

/// 20 bytes a parameter of the fullest stage, and KOR's activations of the microbatches in flight there (under full recomputation those of one layer beside).
fn formula_bytes(config: &RunConfig) -> f64 {
    let (sizes, parallel) = (sizes(config), &config.parallel);
    let (b, t) = (config.train.micro_batch as f64, parallel.tensor as f64);
    let layer = |recompute| formulas::activation_bytes(&sizes, b, t, parallel.sequence_parallel, recompute);
    let stages = crate::plan::memory(config).unwrap_or_default();
    let bytes = stages.iter().map(|stage| {
        let kept: usize = stage.layers.iter().zip(&stage.in_flight).map(|(layers, n)| layers.len() * n).sum();
        let within = match parallel.recompute {
            model::Recompute::Full => layer(model::Recompute::None),
            _ => 0.0,
        };
        20.0 * stage.elements as f64 + kept as f64 * layer(parallel.recompute) + within
    });
    bytes.fold(0.0, f64::max)
}

/// The efficiency that makes a stack's named row as long as it was published. Every modelled time is divided by the efficiency, so that one prediction gives it.
///
/// # Errors
/// A stack that is not there, or was fitted on no row.
pub fn fitted(stack: &str) -> Result<(Row, f64)> {
    let place = Place::load(CLUSTER, stack)?;
    let fitted_on = place.stack.fitted_on.clone();
    let Some(row) = rows()?.into_iter().find(|row| Some(&row.id) == fitted_on.as_ref()) else {
        return Err(Error::user(format!("stack {stack} is fitted on no published row"))
            .at("--stack")
            .remedy("give mt-nlg, narayanan-2021 or korthikanti-2022"));
    };
    let config = row.config()?;
    let whole = Place { stack: Stack { efficiency: 1.0, ..place.stack }, cluster: place.cluster };
    let modelled = predict(&config, &whole)?.step_seconds;
    let efficiency = modelled / row.seconds(&config)?;
    Ok((row, efficiency))
}

/// What `mtnlg plan --fit` prints.
///
/// # Errors
/// As [`fitted`].
pub fn fit(stack: &str) -> Result<String> {
    let (row, efficiency) = fitted(stack)?;
    Ok(format!(
        "# configs/stacks/{stack}.toml, fitted on {} ({})\nefficiency = {efficiency:.4}\n",
        row.id, row.source
    ))
}

/// Every row, predicted.
///
/// # Errors
/// As [`compare`].
pub fn all() -> Result<Vec<Compared>> {
    rows()?.iter().map(compare).collect()
}

/// `docs/rehearsal.md`, of every row.
///
/// # Errors
/// None for the stacks that come with the program.
pub fn page(compared: &[Compared]) -> Result<String> {
    let mut page = include_str!("rehearsal-head.md").to_owned();
    for stack in ["mt-nlg", "narayanan-2021", "korthikanti-2022"] {
        let of_stack: Vec<&Compared> = compared.iter().filter(|c| c.row.stack == stack).collect();
        let _ = write!(page, "\n{}", table(stack, &of_stack)?);
    }
    page.push_str(&time_table(compared));
    page.push_str(&memory_table(compared));
    page.push_str(include_str!("rehearsal-tail.md"));
    Ok(page)
}

fn table(stack: &str, rows: &[&Compared]) -> Result<String> {
    let efficiency = Place::load(CLUSTER, stack)?.stack.efficiency;
    let mut text = format!(
        "## {stack}, efficiency {efficiency:.4}\n\n| run | published s | predicted s | error | published TFLOP/s | predicted | bubble |\n|---|---|---|---|---|---|---|\n"
    );
    for c in rows {
        let (p, flops) = (&c.prediction, c.prediction.hardware_flops / c.prediction.devices as f64 / 1e12);
        let _ = writeln!(
            text,
            "| {}{}{} | {}{:.2} | {:.2} | {} | {:.0} | {:.1} | {:.1}% |",
            c.row.source,
            if c.row.fit { " **(fitted)**" } else { "" },
            if c.row.recalled { " (recalled)" } else { "" },
            if c.row.step_seconds.is_none() { "*" } else { "" },
            c.seconds,
            p.step_seconds,
            percent(c.error()),
            flops / c.seconds,
            p.hardware_tflops_per_gpu,
            100.0 * p.bubble_fraction
        );
    }
    let others: Vec<f64> = rows.iter().filter(|c| !c.row.fit).map(|c| c.error().abs()).collect();
    let mean = others.iter().sum::<f64>() / others.len().max(1) as f64;
    let most = others.iter().copied().fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "\nRows that were not fitted: {:.1}% off on average, {:.1}% at most.",
        100.0 * mean,
        100.0 * most
    );
    if let [full, selective, ..] = rows
        && stack == "korthikanti-2022"
    {
        let gain = |full: f64, selective: f64| full / selective;
        let published = gain(full.seconds, selective.seconds);
        let ours = gain(full.prediction.step_seconds, selective.prediction.step_seconds);
        let _ = writeln!(
            text,
            "The gain from full to selective recomputation with sequence parallelism: published {published:.3}x, predicted {ours:.3}x ({}). MFU of the latter: published {:.1}%, predicted {:.1}%.",
            percent(ours / published - 1.0),
            100.0 * selective.row.mfu.unwrap_or_default(),
            100.0 * selective.prediction.mfu
        );
    }
    Ok(text)
}

fn time_table(rows: &[Compared]) -> String {
    let mut text = "\n## Where a step goes\n\nSeconds, the mean over ranks.\n\n| run | products | other kernels | optimizer | tensor groups | replicas | messages | waiting | launches |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for c in rows {
        let t = &c.prediction.time;
        let parts =
            [t.products, t.other_kernels, t.optimizer, t.tensor, t.data, t.messages, t.waiting, t.launches];
        let cells: Vec<String> = parts.iter().map(|seconds| format!("{seconds:.2}")).collect();
        let _ = writeln!(text, "| {} | {} |", c.row.id, cells.join(" | "));
    }
    text
}

fn memory_table(rows: &[Compared]) -> String {
    let mut text = "\n## Memory of the fullest rank\n\nBeside 20 bytes a parameter and Korthikanti's activations (under full recomputation with one layer's, computed again).\n\n| run | formula, GB | predicted, GB | difference |\n|---|---|---|---|\n".to_owned();
    for c in rows {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {} |",
            c.row.id,
            c.formula_bytes / 1e9,
            c.prediction.peak_bytes as f64 / 1e9,
            percent(c.memory_error())
        );
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:+.1}%", 100.0 * share)
}
