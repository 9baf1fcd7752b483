//! `filter`: documents by length, and by how much they read like the text that the user calls good.
//!
//! A classifier is trained in-process on positives and negatives ([`classifier`]). A document of score `q` stays where `pareto(alpha) > 1 - q` (Brown et al. 2020, appendix A):
//! nearly always near 1, and with probability `2^-alpha` at 0, so that the good is not only what is like the positives. The draw is a hash of the seed and the document's
//! id: the same document has the same fate in any order and on any number of threads.

pub mod classifier;

use crate::input::Files;
use crate::record::{Bad, Record};
use crate::step::{Outcome, Place, Progress, Set, Step, Watch, field};
use crate::{Error, Result};
use classifier::{Classifier, Features};
use serde_json::{Value, json};
use std::ops::ControlFlow::{Break, Continue};
use std::path::Path;

/// Most documents of either side that are learned from.
const MOST_DOCUMENTS: usize = 100_000;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterConfig {
    /// Shape of the Pareto distribution.
    pub alpha: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Documents of fewer characters are dropped.
    pub min_chars: usize,
    /// Documents of more are dropped.
    pub max_chars: Option<usize>,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig { alpha: 3.0, seed: 1234, min_chars: 0, max_chars: None }
    }
}

/// The step.
#[derive(Debug)]
pub struct Filter {
    config: FilterConfig,
    sides: [Files; 2],
    hashes: [String; 2],
    classifier: Option<Classifier>,
    notes: Vec<String>,
}

impl Filter {
    /// Classify by `positives` and `negatives`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for alpha; [`Error::EmptyCorpus`] for a side without files; [`Error::Io`].
    pub fn new(config: FilterConfig, positives: Files, negatives: Files) -> Result<Self> {
        if !(config.alpha.is_finite() && config.alpha > 0.0) {
            let (name, value) = ("alpha", config.alpha.to_string());
            return Err(Error::OutOfRange { name, value, expected: "a positive number".to_owned() });
        }
        let hash = |files: &Files| {
            let mut hasher = blake3::Hasher::new();
            for file in &files.0 {
                field(&mut hasher, file.hash()?.as_bytes());
            }
            Ok(hasher.finalize().to_hex().to_string())
        };
        let hashes = [hash(&positives)?, hash(&negatives)?];
        Ok(Filter { config, sides: [positives, negatives], hashes, classifier: None, notes: Vec::new() })
    }

    fn read(&self, side: usize) -> Result<Vec<Features>> {
        let mut documents = Vec::new();
        self.sides[side].stream(
            |_, record| record.map(|record| Features::of(&record.text)),
            &mut |features: std::result::Result<Features, Bad>, _| {
                // Unreadable ones teach nothing; where they are input too they are counted there.
                documents.extend(features.ok().filter(|features| !features.is_empty()));
                Ok(if documents.len() < MOST_DOCUMENTS { Continue(()) } else { Break(()) })
            },
        )?;
        if documents.len() < 2 {
            return Err(Error::EmptyCorpus {
                path: ["positives", "negatives"][side].into(),
                reason: format!("they hold {} documents with words", documents.len()),
                remedy: "give at least two, better thousands",
            });
        }
        Ok(documents)
    }
}

/// A uniform number in `[0, 1)` for a document.
fn draw(seed: u64, id: &str) -> f64 {
    let mut hasher = blake3::Hasher::new();
    field(&mut hasher, &seed.to_le_bytes());
    field(&mut hasher, id.as_bytes());
    let hash = hasher.finalize();
    let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    (u64::from_le_bytes(*first) >> 11) as f64 / (1u64 << 53) as f64
}

/// The draw of NumPy's `random.pareto(alpha)` (Lomax) that belongs to a uniform number.
fn pareto(uniform: f64, alpha: f64) -> f64 {
    (1.0 - uniform).powf(-1.0 / alpha) - 1.0
}

impl Step for Filter {
    fn name(&self) -> &'static str {
        "filter"
    }

    fn options(&self) -> Value {
        let FilterConfig { alpha, seed, min_chars, max_chars } = self.config;
        let [positives, negatives] = &self.hashes;
        json!({
            "alpha": alpha, "seed": seed, "min_chars": min_chars, "max_chars": max_chars,
            "positives": positives, "negatives": negatives,
        })
    }

    fn learns(&self) -> bool {
        true
    }

    fn learns_from_sets(&self) -> bool {
        false
    }

    fn learn(&mut self, _: &[Set], _: &Path, progress: &mut Watch<'_>) -> Result<()> {
        let doing = "filter: training the classifier".to_owned();
        progress(Progress { doing: doing.clone(), done: 0, total: 1 });
        let (positives, negatives) = (self.read(0)?, self.read(1)?);
        let (classifier, held_out) = Classifier::train(&positives, &negatives, self.config.seed as u32);
        progress(Progress { doing, done: 1, total: 1 });
        self.notes = vec![held_out.to_string()];
        self.classifier = Some(classifier);
        Ok(())
    }

    fn apply(&self, _: Place, mut record: Record) -> Outcome {
        let chars = record.text.chars().count();
        if chars < self.config.min_chars {
            return Outcome::drop(&record, "short");
        }
        if self.config.max_chars.is_some_and(|most| chars > most) {
            return Outcome::drop(&record, "long");
        }
        let Some(classifier) = &self.classifier else { unreachable!("a step learns before it is applied") };
        let score = classifier.score(&Features::of(&record.text));
        if pareto(draw(self.config.seed, &record.id), self.config.alpha) <= 1.0 - score {
            return Outcome::drop(&record, "quality");
        }
        record.meta.insert("quality".to_owned(), ((score * 1e4).round() / 1e4).into());
        Outcome::keep(record)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_pareto() {
        let n = 20_000;
        let draws: Vec<f64> = (0..n).map(|i| draw(7, &format!("document {i}"))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_eq!(draw(7, "a"), draw(7, "a"));
        assert_ne!(draw(7, "a"), draw(8, "a"));
        // A document of score 0 stays with probability 2^-alpha.
        let kept = draws.iter().filter(|&&u| pareto(u, 3.0) > 1.0).count() as f64 / f64::from(n);
        assert!((kept - 0.125).abs() < 0.01, "{kept}");
        assert_eq!(pareto(0.0, 3.0), 0.0);
    }
}
