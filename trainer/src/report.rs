//! `report.html`: the run on one self-contained page.

use crate::config::RunConfig;
use crate::metrics::{StepMetrics, Summary};

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
