//! The evaluation tasks, asked of the model while it is trained: on the training's own ranks, over the weights that the last step left.
//!
//! Files are found and read, examples drawn and requests encoded before the first step. Each replica answers its share of the requests, a round at a time; behind a round the replicas tell
//! each other their answers. Nothing that the training computes with is touched: its bits are those of a run that is not evaluated.

use std::sync::atomic::{AtomicBool, Ordering};

use backend::Backend;
use data::tokenizer::Tokenizer;
use eval::metrics::{Metric, measure};
use eval::plan::{Data, Job, Plan};
use eval::report::text;
use eval::scorer::{Counter, Scored};
use eval::shots::SEED;
use eval::tasks::by_names;

use crate::config::RunConfig;
use crate::inference::ranks::{EXCHANGED, Rank};
use crate::inference::scoring::{Encoded, score};
use crate::metrics::Evaluated;
use crate::{Error, Result};

/// Words that an answer takes in what replicas tell each other.
const WORDS: usize = 4;
/// Requests that a replica answers in a round: with a word for the wish to stop, their answers are one message.
const ROUND: usize = (EXCHANGED - 1) / WORDS;
/// Bootstraps of a perplexity's standard error: `mtnlg eval` has a hundred times as many.
const BOOTSTRAPS: usize = 1000;

/// What is to be asked, with its files read.
pub struct Files(Plan);

impl Files {
    /// Finds and reads the tasks' files, where the configuration names tasks.
    ///
    /// # Errors
    /// Files that are not there, all in one error; a line that cannot be read; too few examples.
    pub fn read(config: &RunConfig) -> Result<Option<Self>> {
        let evaluation = &config.evaluation;
        if evaluation.tasks.is_empty() {
            return Ok(None);
        }
        let read = || {
            let tasks = by_names(&evaluation.tasks.join(","))?;
            let data = Data::new(&evaluation.data)?;
            let limit = (evaluation.limit > 0).then_some(evaluation.limit);
            Plan::new(&tasks, &evaluation.shots, &data, limit, SEED)
        };
        let plan = read().map_err(|error: eval::Error| {
            let at = format!("evaluation.data = {:?}", evaluation.data);
            match error.is_user() {
                true => Error::user(error.to_string()).at(at),
                false => Error::other(error.to_string()).at(at),
            }
        })?;
        Ok(Some(Self(plan)))
    }
}

/// A task with a number of examples, ready to be asked.
struct Asked {
    job: Job,
    requests: Vec<Encoded>,
    /// Requests that lost their beginning, and documents that have fewer examples than were asked for.
    cut: usize,
    shortened: usize,
}

/// Who hears, in words, what is asked, and then, with `true`, what came of it.
pub type Told<'a> = &'a mut dyn FnMut(&str, bool);

/// What is asked each time.
pub struct Evaluation {
    every: u64,
    asked: Vec<Asked>,
}

/// How long texts are to the model.
struct Lengths<'a> {
    tokenizer: &'a Tokenizer,
    length: usize,
}

impl Counter for Lengths<'_> {
    type Error = Error;

    fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.tokenizer.encode(text)?.len())
    }

    fn max_tokens(&self) -> usize {
        self.length
    }
}

impl Evaluation {
    /// Makes all requests.
    ///
    /// # Errors
    /// Too few examples; a text that the tokenizer refuses.
    pub fn new(files: Files, config: &RunConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let (Files(plan), length) = (files, config.model.seq_len);
        let asked = |job: Job| -> Result<Asked> {
            let counter = Lengths { tokenizer, length };
            let built =
                eval::run::requests(&job, plan.seed, &counter).map_err(|e| Error::user(e.to_string()))?;
            let encode = |request: &eval::scorer::Request| {
                Encoded::new(tokenizer, &request.context, &request.continuation, length)
            };
            let requests = built.requests.iter().map(encode).collect::<Result<_>>()?;
            Ok(Asked { job, requests, cut: built.cut, shortened: built.shortened })
        };
        let asked = plan.jobs.into_iter().map(asked).collect::<Result<_>>()?;
        Ok(Self { every: config.evaluation.every, asked })
    }

    /// Whether it is asked behind this step, which is the `last` of the run or not.
    pub fn is_due(&self, step: u64, last: bool) -> bool {
        last || self.every > 0 && step.is_multiple_of(self.every)
    }

    /// A line: what is asked, and when.
    pub fn describe(&self) -> String {
        let asked = self.asked.iter().map(|Asked { job, requests, cut, shortened }| {
            let losses = [(*cut, "lost their beginning"), (*shortened, "documents have fewer examples")];
            let losses = losses.into_iter().filter(|(count, _)| *count > 0);
            let losses: String = losses.map(|(count, what)| format!(", {count} {what}")).collect();
            format!("{} with {} ({} requests{losses})", job.task.name, text::shots(job.shots), requests.len())
        });
        let when = match self.every {
            0 => "at the end".to_owned(),
            every => format!("every {every} steps and at the end"),
        };
        format!("evaluation: {}; {when}", asked.collect::<Vec<_>>().join(", "))
    }

    /// Asks everything; every rank calls it. The first rank of the run gets the metrics, and `told` hears of each task before and after; the others get none. A wish to stop ends it without
    /// a result.
    ///
    /// # Errors
    /// Those of the ranks.
    pub fn ask<B: Backend>(
        &self,
        rank: &mut Rank<'_, B>,
        stop: &AtomicBool,
        mut told: Option<Told<'_>>,
    ) -> Result<Vec<Evaluated>> {
        if !rank.leads() {
            rank.follow()?;
            return Ok(Vec::new());
        }
        let mut evaluated = Vec::new();
        for Asked { job, requests, .. } in &self.asked {
            let name = format!("{} with {}", job.task.name, text::shots(job.shots));
            if let Some(told) = &mut told {
                told(&format!("{name}, {} requests", requests.len()), false);
            }
            let Some(answers) = answers(rank, requests, stop)? else {
                evaluated.clear();
                break;
            };
            // The other replicas have the same answers, and nobody to tell.
            if let Some(told) = &mut told {
                let metrics = metrics(job, &answers);
                told(&text::metrics(&name, &metrics), true);
                evaluated.extend(metrics.into_iter().map(|metric| Evaluated {
                    task: job.task.name.to_owned(),
                    shots: job.shots,
                    documents: metric.documents,
                    metric: metric.name,
                    value: metric.value,
                    stderr: metric.stderr,
                }));
            }
        }
        rank.end()?;
        Ok(evaluated)
    }
}

/// A job's metrics. Where an answer is no number, they are none either.
fn metrics(job: &Job, answers: &[Scored]) -> Vec<Metric> {
    let mut metrics = measure(job.task, job.evaluated(), answers, BOOTSTRAPS);
    if answers.iter().any(|answer| answer.log_likelihood.is_nan()) {
        for metric in &mut metrics {
            (metric.value, metric.stderr) = (None, None);
        }
    }
    metrics
}

/// The answers to all requests, on the first rank of each replica; `None` where one of these wishes to stop.
fn answers<B: Backend>(
    rank: &mut Rank<'_, B>,
    requests: &[Encoded],
    stop: &AtomicBool,
) -> Result<Option<Vec<Scored>>> {
    let (replica, replicas) = rank.replica();
    let mut answers = Vec::with_capacity(requests.len());
    for round in requests.chunks(ROUND * replicas) {
        // Neighbours, which may begin alike, go to one replica.
        let share = round.len().div_ceil(replicas);
        let own = round.chunks(share).nth(replica).unwrap_or_default();
        let mut message = vec![0; 1 + own.len() * WORDS];
        score(rank, own, |i, scored| {
            message[1 + i * WORDS..][..WORDS].copy_from_slice(&words(scored));
            Ok(())
        })?;
        message[0] = u32::from(stop.load(Ordering::Relaxed));
        let all = rank.exchange(&message)?;
        if all.iter().any(|message| message[0] > 0) {
            return Ok(None);
        }
        for (requests, message) in round.chunks(share).zip(&all) {
            answers.extend(message[1..].as_chunks::<WORDS>().0.iter().take(requests.len()).map(scored));
        }
    }
    Ok(Some(answers))
}

/// An answer as words, bit for bit.
fn words(Scored { log_likelihood, tokens, is_greedy }: &Scored) -> [u32; WORDS] {
    let bits = log_likelihood.to_bits();
    [bits as u32, (bits >> 32) as u32, *tokens as u32, u32::from(*is_greedy)]
}

/// And back.
fn scored(&[low, high, tokens, is_greedy]: &[u32; WORDS]) -> Scored {
    let log_likelihood = f64::from_bits(u64::from(high) << 32 | u64::from(low));
    Scored { log_likelihood, tokens: tokens as usize, is_greedy: is_greedy > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_bit_for_bit() {
        for log_likelihood in [-0.1 - 0.2, f64::NEG_INFINITY, -1e-300, -12345.678] {
            let answer = Scored { log_likelihood, tokens: 70_000, is_greedy: log_likelihood > -1.0 };
            assert_eq!(scored(&words(&answer)), answer);
        }
    }
}
