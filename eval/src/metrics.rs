//! Metrics and their standard errors, as lm-evaluation-harness has them: means with the closed form, perplexity by bootstrap.

use std::thread;

use serde::{Deserialize, Serialize};

use crate::documents::Document;
use crate::python::argmax;
use crate::python::random::Random;
use crate::scorer::Scored;
use crate::tasks::{Measure, Task};

/// The harness's number of bootstraps.
pub const BOOTSTRAPS: usize = 100_000;
/// Bootstraps that share a generator, which is seeded by their place.
const CHUNK: usize = 1000;

/// A metric of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// `acc`, `acc_norm`, `perplexity`, or `acc_` and a group.
    pub name: String,
    /// An accuracy as a share of 1; a perplexity. None where it overflows.
    pub value: Option<f64>,
    /// Its standard error; a single document has none.
    pub stderr: Option<f64>,
    /// Documents that it is taken over.
    pub documents: usize,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// The metric that the published accuracies stand beside.
#[must_use]
pub fn headline(measure: Measure) -> &'static str {
    match measure {
        Measure::Choice { normalised: true } => "acc_norm",
        Measure::Word | Measure::Choice { normalised: false } | Measure::Ratio => "acc",
    }
}

/// The metrics of `documents`, whose requests have the `answers`, in order; `bootstraps` draws for a perplexity's error.
///
/// Panics unless each request has an answer.
#[must_use]
pub fn measure(task: &Task, documents: &[Document], answers: &[Scored], bootstraps: usize) -> Vec<Metric> {
    let mut rest = answers;
    let mut of = |document: &Document| {
        let choices = document.contexts.len().max(document.continuations.len());
        let count = if document.baseline.is_some() { 2 * choices } else { choices };
        let (own, behind) = rest.split_at(count);
        rest = behind;
        own.to_vec()
    };
    let answers: Vec<Vec<Scored>> = documents.iter().map(&mut of).collect();
    let each = |f: fn(&Document, &[Scored]) -> f64| -> Vec<f64> {
        documents.iter().zip(&answers).map(|(document, answers)| f(document, answers)).collect()
    };
    let mut metrics = Vec::new();
    let right: Vec<f64> = match task.measure {
        Measure::Word => {
            metrics.push(perplexity(&each(|_, answers| answers[0].log_likelihood), bootstraps));
            each(|_, answers| f64::from(u8::from(answers[0].is_greedy)))
        }
        Measure::Choice { .. } => each(|document, answers| hit(document, answers, |_| 1.0)),
        Measure::Ratio => each(|document, answers| {
            let (given, alone) = answers.split_at(answers.len() / 2);
            let gains: Vec<f64> = given
                .iter()
                .zip(alone)
                .map(|(given, alone)| given.log_likelihood - alone.log_likelihood)
                .collect();
            f64::from(u8::from(argmax(&gains) == document.target))
        }),
    };
    metrics.push(mean("acc", &right));
    if task.measure == (Measure::Choice { normalised: true }) {
        let normalised =
            each(|document, answers| hit(document, answers, |choice| document.lengths[choice] as f64));
        metrics.push(mean("acc_norm", &normalised));
    }
    let mut groups: Vec<&str> = documents.iter().filter_map(|document| document.group.as_deref()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let of_group =
            documents.iter().zip(&right).filter(|(document, _)| document.group.as_deref() == Some(group));
        let right: Vec<f64> = of_group.map(|(_, right)| *right).collect();
        metrics.push(mean(&format!("acc_{group}"), &right));
    }
    metrics
}

/// 1 where the choice of the greatest log-likelihood, divided by `by` of the choice, is the right one.
fn hit(document: &Document, answers: &[Scored], by: impl Fn(usize) -> f64) -> f64 {
    let values: Vec<f64> =
        answers.iter().enumerate().map(|(choice, answer)| answer.log_likelihood / by(choice)).collect();
    f64::from(u8::from(argmax(&values) == document.target))
}

fn mean(name: &str, values: &[f64]) -> Metric {
    let count = values.len();
    let stderr = (count > 1).then(|| deviation(values) / (count as f64).sqrt());
    Metric {
        name: name.into(),
        value: finite(average(values)),
        stderr,
        documents: count,
        higher_is_better: true,
    }
}

fn perplexity(log_likelihoods: &[f64], bootstraps: usize) -> Metric {
    let chunk = CHUNK.min(bootstraps);
    let chunks = bootstraps.checked_div(chunk).unwrap_or(0);
    let several = log_likelihoods.len() > 1 && bootstraps > 1;
    let stderr = several.then(|| deviation(&resampled(log_likelihoods, chunks, chunk))).and_then(finite);
    Metric {
        name: "perplexity".into(),
        value: finite((-average(log_likelihoods)).exp()),
        stderr,
        documents: log_likelihoods.len(),
        higher_is_better: false,
    }
}

/// Perplexities of `chunks * chunk` samples with replacement: each chunk has a generator of its own, so threads do not change a number.
fn resampled(log_likelihoods: &[f64], chunks: usize, chunk: usize) -> Vec<f64> {
    let count = log_likelihoods.len();
    let of_chunk = |index: usize| -> Vec<f64> {
        let mut random = Random::new(index as u32);
        let mut sample = || {
            let sum: f64 = (0..count).map(|_| log_likelihoods[random.choice(count)]).sum();
            (-sum / count as f64).exp()
        };
        (0..chunk).map(|_| sample()).collect()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(chunks.max(1));
    let mut results = vec![Vec::new(); chunks];
    thread::scope(|scope| {
        for (first, share) in results.chunks_mut(chunks.div_ceil(threads).max(1)).enumerate() {
            let of_chunk = &of_chunk;
            let first = first * chunks.div_ceil(threads);
            scope.spawn(move || {
                for (i, result) in share.iter_mut().enumerate() {
                    *result = of_chunk(first + i);
                }
            });
        }
    });
    results.concat()
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of a sample, by Bessel.
fn deviation(values: &[f64]) -> f64 {
    let middle = average(values);
    let squares: f64 = values.iter().map(|value| (value - middle) * (value - middle)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_few() {
        let one = mean("acc", &[1.0]);
        assert_eq!((one.value, one.stderr), (Some(1.0), None));
        // Two of four: deviation sqrt(1/3), over the root of 4.
        let four = mean("acc", &[1.0, 0.0, 1.0, 0.0]);
        assert!((four.stderr.unwrap() - (1.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
        let lost = perplexity(&[f64::NEG_INFINITY, -1.0], 10);
        assert_eq!((lost.value, lost.stderr), (None, None));
        assert_eq!(perplexity(&[-1.0, -2.0], 0).stderr, None);
    }

    #[test]
    fn chunks_do_not_depend_on_threads() {
        let values: Vec<f64> = (0..50).map(|i| -f64::from(i) / 10.0).collect();
        let all = resampled(&values, 7, 3);
        assert_eq!(all.len(), 21);
        assert_eq!(all[3..6], resampled(&values, 2, 3)[3..]);
    }
}
