//! The command line of `mtnlg parity`.

use std::path::PathBuf;

use clap::Args;

use super::{Variant, all, parse, run};
use crate::config::{BackendChoice, Layers, RunConfig};
use crate::{Error, Result, device};

/// What is trained where no configuration is named.
const DEFAULT: &str = include_str!("../../../configs/parity.toml");

/// `mtnlg parity`.
#[derive(Clone, Debug, Args)]
pub struct ParityArgs {
    /// Configuration file [default: a model of four layers, numerics invariant]
    pub config: Option<PathBuf>,
    /// `all`, or a list such as 1x1x1,2x2x2+sp+full,1x4x1+zb-h1,1x1x1<2x2x2
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub layouts: String,
    /// Optimizer steps
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub steps: u32,
    /// Any configuration key, over the file; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the model runs: auto, cpu, wgpu or cuda
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub backend: BackendChoice,
    /// Write the result as JSON too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The configuration that is trained where none is named.
///
/// # Errors
/// A `--set` that does not fit.
pub fn default_config(set: &[String]) -> Result<RunConfig> {
    resolve(Layers::default().built_in("configs/parity.toml", DEFAULT), set)
}

fn resolve(layers: Layers, set: &[String]) -> Result<RunConfig> {
    let layers = set.iter().try_fold(layers, |layers, assignment| layers.set(assignment))?;
    RunConfig::resolve(&layers)
}

impl ParityArgs {
    /// Does it, and prints a line a variant and the verdict.
    ///
    /// # Errors
    /// The user's mistakes; those of the ranks; a promise that was not kept.
    pub fn run(&self) -> Result<()> {
        let mut config = match &self.config {
            None => default_config(&self.set)?,
            Some(file) => resolve(Layers::default().file(file), &self.set)?,
        };
        config.run.backend = self.backend;
        if self.steps < 2 {
            return Err(Error::user(format!("--steps {} is too few", self.steps)).remedy("give at least 2"));
        }
        let variants: Vec<Variant> = match self.layouts.as_str() {
            "all" => all(&config),
            list => list.split(',').map(|text| parse(text.trim())).collect::<Result<_>>()?,
        };
        let (device, why) = device::choose(config.run.backend)?;
        println!("backend: {why}");
        println!(
            "model: {:.2} M parameters, {:?} precision",
            config.model.parameters() as f64 / 1e6,
            config.train.precision
        );
        let report =
            run(&config, &device, &variants, u64::from(self.steps), |outcome| println!("{outcome}"))?;
        println!("{report}");
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report).expect("a report has only JSON's types");
            std::fs::write(path, text + "\n").map_err(|e| Error::io("write the result", path, &e))?;
        }
        match report.kept() {
            true => Ok(()),
            false => Err(Error::other("the layouts do not train the same model")
                .remedy("each line above that differs from the first names a way")),
        }
    }
}
