//! `mtnlg probe`: the qualitative part of the paper (Smith et al. 2022, arXiv 2201.11990), as reports on text that the model writes.
//!
//! [`arithmetic`]: does it find out from examples what an operator means; [`occupations`]: whom it takes people of an occupation for; [`adjectives`]: what
//! it says of people of different groups. The questions follow the paper's; prompts, lists and counts are ours and stand in the report.

pub mod adjectives;
pub mod arithmetic;
pub mod occupations;
mod words;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::report::Subject;
use crate::samples::write;
use crate::{Error, Result};

/// Texts to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The texts.
    pub prompts: Vec<String>,
    /// Continuations of each.
    pub samples: usize,
    /// Tokens of a continuation at the most.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the fewest tokens that have this much of the probability together; 1 for all.
    pub top_p: f64,
    /// Text that ends a continuation and is not part of it.
    pub stop: Vec<String>,
    /// Seed of the draws.
    pub seed: u64,
}

/// A model that writes.
pub trait Generator {
    /// What can go wrong.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The continuations: for each prompt, in order, its samples.
    ///
    /// # Errors
    /// As the generator has them.
    fn generate(&mut self, ask: &Ask) -> Result<Vec<Vec<String>>, Self::Error>;
}

/// What is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Operators as signs that mean nothing, to be understood from examples
    Arithmetic,
    /// Gendered words after occupations
    Occupations,
    /// Words said of men and women, of peoples and of believers
    Adjectives,
}

/// `mtnlg probe`, without what says which model, and where it runs.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// What to probe; may be given many times [default: all]
    #[arg(value_enum, value_name = "PROBE")]
    pub probes: Vec<Probe>,
    /// Continuations of each prompt of the probes that draw
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub samples: u32,
    /// Problems of each kind, of the arithmetic
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub problems: u32,
    /// Worked examples before each problem, of the arithmetic
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub shots: u32,
    /// Draw from the fewest tokens that have this much of the probability
    #[arg(long, value_name = "P", default_value_t = 0.9, value_parser = share)]
    pub top_p: f64,
    /// Divides the logits
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = temperature)]
    pub temperature: f64,
    /// Seed of problems and draws
    #[arg(long, value_name = "N", default_value_t = 1234)]
    pub seed: u32,
    /// Write the report, with all counts, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    number.ok_or_else(|| "give more than 0 and at most 1".into())
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "give 0 or more".into())
}

/// What came of the probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was probed.
    pub subject: Subject,
    /// How continuations were drawn.
    pub drawn: String,
    /// The arithmetic.
    pub arithmetic: Option<arithmetic::Findings>,
    /// The occupations.
    pub occupations: Option<occupations::Findings>,
    /// The adjectives.
    pub adjectives: Option<adjectives::Findings>,
}

impl ProbeArgs {
    /// Asks, counts, and writes the report where the arguments say.
    ///
    /// # Errors
    /// The generator's; a file that cannot be written.
    pub fn run<G: Generator>(&self, generator: &mut G, subject: &Subject) -> Result<Report> {
        let wants = |probe| self.probes.is_empty() || self.probes.contains(&probe);
        let mut ask = |ask: &Ask| generator.generate(ask).map_err(Error::scorer);
        let arithmetic = match wants(Probe::Arithmetic) {
            true => {
                Some(arithmetic::probe(self.shots as usize, self.problems as usize, self.seed, &mut ask)?)
            }
            false => None,
        };
        let drawn = Ask {
            prompts: Vec::new(),
            samples: self.samples as usize,
            max_tokens: 24,
            temperature: self.temperature,
            top_p: self.top_p,
            stop: vec!["\n".into()],
            seed: self.seed.into(),
        };
        let occupations = match wants(Probe::Occupations) {
            true => Some(occupations::probe(&drawn, &mut ask)?),
            false => None,
        };
        let adjectives = match wants(Probe::Adjectives) {
            true => Some(adjectives::probe(&drawn, &mut ask)?),
            false => None,
        };
        let Self { samples, temperature, top_p, seed, .. } = self;
        let report = Report {
            subject: subject.clone(),
            drawn: format!(
                "{samples} continuations a prompt, temperature {temperature}, top-p {top_p}, seed {seed}; arithmetic greedy"
            ),
            arithmetic,
            occupations,
            adjectives,
        };
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(&report);
            write(file, &(text.map_err(|error| Error::io("write", file)(error.into()))? + "\n"))?;
        }
        Ok(report)
    }
}

/// Asks the generator; what the probes are given.
pub(crate) type Asking<'a> = dyn FnMut(&Ask) -> Result<Vec<Vec<String>>> + 'a;

impl Report {
    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let Subject { model, checkpoint, backend, .. } = &self.subject;
        let mut text = format!("{model} ({checkpoint}) on {backend}\n{}\n", self.drawn);
        if let Some(findings) = &self.arithmetic {
            text += &format!("\n{}", findings.text());
        }
        if let Some(findings) = &self.occupations {
            text += &format!("\n{}", findings.text());
        }
        if let Some(findings) = &self.adjectives {
            text += &format!("\n{}", findings.text());
        }
        text
    }
}

/// A share of one in per cent, or a dash where there is nothing to share.
fn percent(part: usize, whole: usize) -> String {
    match whole {
        0 => "–".into(),
        _ => format!("{:.1}", 100.0 * part as f64 / whole as f64),
    }
}
