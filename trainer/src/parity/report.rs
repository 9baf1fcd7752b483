//! What `mtnlg parity` says.

use std::fmt;

use serde::Serialize;

use super::{Trained, Variant, digest};
use crate::config::{Mode, RunConfig};
use crate::options::Precision;

/// What came of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// Pipeline stages.
    pub pp: usize,
    /// Data-parallel replicas.
    pub dp: usize,
    /// The pipeline's schedule.
    pub schedule: String,
    /// Model chunks a stage.
    pub virtual_stages: usize,
    /// What is computed again.
    pub recompute: String,
    /// Whether tensor ranks share out the tokens.
    pub sequence_parallel: bool,
    /// Whether replicas share out the optimizer's state.
    pub zero1: bool,
    /// Ranks as `threads`, `processes` or `mpi` processes.
    pub launch: &'static str,
    /// The layout in which the first half of the steps was trained, where that was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<String>,
    /// Loss of the last step.
    pub loss: f32,
    /// Gradient norm of the last step.
    pub grad_norm: f32,
    /// Digest of every parameter and moment.
    pub digest: String,
}

impl Outcome {
    /// Of a variant.
    pub fn new(variant: &Variant, trained: &Trained) -> Self {
        let [tp, pp, dp] = variant.layout;
        Self {
            tp,
            pp,
            dp,
            schedule: variant.schedule.to_string(),
            virtual_stages: variant.virtual_stages,
            recompute: variant.recompute_name().to_owned(),
            sequence_parallel: variant.sequence_parallel,
            zero1: variant.sharded_optimizer,
            launch: variant.launcher.name(),
            interrupted: variant.interrupted.as_ref().map(ToString::to_string),
            loss: trained.loss,
            grad_norm: trained.grad_norm,
            digest: digest::of(&trained.state),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.virtual_stages > 1).then(|| format!("x{}", self.virtual_stages)),
            (self.recompute != "none").then(|| format!("recompute {}", self.recompute)),
            self.sequence_parallel.then(|| "sequence parallel".to_owned()),
            self.zero1.then(|| "ZeRO-1".to_owned()),
            (self.launch != "threads").then(|| self.launch.to_owned()),
            self.interrupted.as_ref().map(|before| format!("after {before}")),
        ];
        let flags: Vec<String> = flags.into_iter().flatten().collect();
        let Self { tp, pp, dp, schedule, loss, grad_norm, digest, .. } = self;
        let cut = format!("{tp} x {pp} x {dp}");
        write!(
            f,
            "{cut:<10} {schedule:<11} {:<44} loss {loss:.6}  norm {grad_norm:.6}  {}",
            flags.join(", "),
            &digest[..16]
        )
    }
}

/// What came of all of them.
#[derive(Clone, Debug, Serialize)]
pub struct ParityReport {
    /// `fast` or `invariant`.
    pub numerics: &'static str,
    /// `f32`, `bf16` or `f16`.
    pub precision: Precision,
    /// Steps that each variant trained.
    pub steps: u64,
    /// The variants.
    pub layouts: Vec<Outcome>,
    /// Whether all digests are one.
    pub equal: bool,
    /// The largest difference of a loss or a norm from the first variant's, relative to it.
    pub largest_difference: f64,
    /// What that may be: 0 for `invariant`.
    pub bound: f64,
}

impl ParityReport {
    /// Compares every variant with the first.
    pub fn new(config: &RunConfig, steps: u64, layouts: Vec<Outcome>) -> Self {
        let differences = layouts.iter().flat_map(|outcome| {
            let first = &layouts[0];
            [(outcome.loss, first.loss), (outcome.grad_norm, first.grad_norm)]
        });
        let relative = differences.map(|(a, b)| f64::from((a - b) / b).abs());
        // NaN is the largest difference of all.
        let largest = |most: f64, next: f64| if next <= most { most } else { next };
        let invariant = config.numerics.mode == Mode::Invariant;
        // fp32 rounding over a few steps; a bf16 sum rounds at 2^-9.
        let rounding = if config.train.precision == Precision::F32 { 1e-5 } else { 2e-2 };
        Self {
            numerics: if invariant { "invariant" } else { "fast" },
            precision: config.train.precision,
            steps,
            equal: layouts.iter().all(|outcome| outcome.digest == layouts[0].digest),
            largest_difference: relative.fold(0.0, largest),
            bound: if invariant { 0.0 } else { rounding },
            layouts,
        }
    }

    /// Whether the promise of the numerics was kept: equal digests under `invariant`, differences within the bound under `fast`.
    pub fn kept(&self) -> bool {
        match self.numerics {
            "invariant" => self.equal,
            _ => self.largest_difference <= self.bound,
        }
    }

    /// The variants whose digest is not the first one's.
    pub fn others(&self) -> impl Iterator<Item = &Outcome> {
        self.layouts.iter().filter(|outcome| outcome.digest != self.layouts[0].digest)
    }
}

impl fmt::Display for ParityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variants, steps) = (self.layouts.len(), self.steps);
        match (self.numerics, self.equal) {
            ("invariant", true) => {
                write!(f, "equal: {variants} variants, {steps} steps, one digest {}", self.layouts[0].digest)
            }
            ("invariant", false) => {
                let others = self.others().count();
                write!(
                    f,
                    "NOT equal: {others} of {variants} variants differ from the first after {steps} steps"
                )
            }
            _ => write!(
                f,
                "{variants} variants, {steps} steps: largest relative difference {:.2e}, bound {:.0e}{}",
                self.largest_difference,
                self.bound,
                if self.kept() { "" } else { ": EXCEEDED" }
            ),
        }
    }
}
