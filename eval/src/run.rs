//! Runs a plan: builds a job's requests, asks the scorer for what the journal does not know, measures.

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use crate::documents::Document;
use crate::journal::{self, Journal, Key};
use crate::metrics;
use crate::plan::{Job, Plan};
use crate::progress::Progress;
use crate::report::{Report, Subject, TaskResult};
use crate::samples::Samples;
use crate::scorer::{Counter, Request, Scored, Scorer};
use crate::shots::{self, Sampler};
use crate::{Error, Result};

/// A job's requests.
#[derive(Debug)]
pub struct Requests {
    /// Those of a document stand behind each other.
    pub requests: Vec<Request>,
    /// Of each request its document.
    pub document: Vec<usize>,
    /// Of each document its examples: indices into the training file, in their order; what did not fit is left out.
    pub examples: Vec<Vec<usize>>,
    /// Documents that have fewer examples than were asked for.
    pub shortened: usize,
    /// Requests that are longer than the model's sequence, and so lose their beginning.
    pub cut: usize,
}

/// How a run is done.
pub struct Options<'a> {
    /// Folder of the journals; without one an interrupted run begins anew.
    pub journal: Option<&'a Path>,
    /// Bootstraps of a perplexity's error.
    pub bootstraps: usize,
    /// Where each request is written to.
    pub samples: Option<&'a mut Samples>,
    /// What the user sees.
    pub progress: Progress,
}

/// Draws the examples and makes the requests of a job.
///
/// # Errors
/// Too few examples; the tokenizer's errors.
pub fn requests<C: Counter>(job: &Job, seed: u32, counter: &C) -> Result<Requests> {
    let mut sampler = match &job.pool {
        Some(pool) => Some(Sampler::new(job.task, pool, job.shots, seed)?),
        None => None,
    };
    let room = counter.max_tokens();
    let mut built =
        Requests { requests: Vec::new(), document: Vec::new(), examples: Vec::new(), shortened: 0, cut: 0 };
    for (index, document) in job.evaluated().iter().enumerate() {
        let mut drawn = Vec::new();
        let mut prefix = String::new();
        if let (Some(sampler), Some(pool)) = (&mut sampler, &job.pool) {
            drawn = sampler.draw(document)?;
            let texts: Vec<&str> = drawn.iter().map(|i| pool.documents[*i].example.as_str()).collect();
            let dropped = shots::too_many(counter, &texts, document).map_err(Error::scorer)?;
            built.shortened += usize::from(dropped > 0);
            prefix = texts[dropped..].concat();
            drawn.drain(..dropped);
        }
        for request in document.requests(&prefix) {
            // A token is a byte at least: a text of few bytes needs no counting.
            let bytes = request.context.len() + request.continuation.len();
            if bytes > room {
                let text = format!("{}{}", request.context, request.continuation);
                // The last token is only asked about, and an empty context is a token.
                let own = usize::from(request.context.is_empty());
                let tokens = own + counter.count_tokens(&text).map_err(Error::scorer)?;
                built.cut += usize::from(tokens > room + 1);
            }
            built.requests.push(request);
            built.document.push(index);
        }
        built.examples.push(drawn);
    }
    Ok(built)
}

/// Runs all jobs of a plan.
///
/// # Errors
/// The scorer's, those of files that are written, an answer that is not a number. What was answered before is in the journal.
pub fn evaluate<S: Scorer>(
    plan: &Plan,
    scorer: &mut S,
    subject: &Subject,
    mut options: Options<'_>,
) -> Result<Report> {
    let weights: Vec<u64> = plan.jobs.iter().map(Job::weight).collect();
    options.progress.begin(weights.iter().sum());
    let mut results = Vec::new();
    for (job, weight) in plan.jobs.iter().zip(weights) {
        let started = Instant::now();
        options.progress.job(job, weight, "preparing requests");
        let built = requests(job, plan.seed, scorer)?;
        let key = Key {
            checkpoint: subject.key.clone(),
            task: job.task.name.into(),
            shots: job.shots,
            requests: built.requests.len(),
            hash: journal::digest(&built.requests),
        };
        let answers = answers(job, weight, &built, &key, scorer, &mut options)?;
        let result = TaskResult::new(
            job,
            &built,
            &key,
            metrics::measure(job.task, job.evaluated(), &answers, options.bootstraps),
            started.elapsed().as_secs_f64(),
        );
        if let Some(samples) = options.samples.as_deref_mut() {
            samples.job(job, &built, &answers)?;
        }
        options.progress.result(&result);
        results.push(result);
    }
    options.progress.finish();
    Ok(Report::new(plan, subject, results))
}

/// The answers to a job's requests: the journal's, and for the others the scorer's.
fn answers<S: Scorer>(
    job: &Job,
    weight: u64,
    built: &Requests,
    key: &Key,
    scorer: &mut S,
    options: &mut Options<'_>,
) -> Result<Vec<Scored>> {
    let (mut journal, mut answers) = match options.journal {
        Some(folder) => Journal::open(folder, key).map(|(journal, known)| (Some(journal), known))?,
        None => (None, vec![None; built.requests.len()]),
    };
    let open: Vec<usize> = (0..answers.len()).filter(|i| answers[*i].is_none()).collect();
    let known = answers.len() - open.len();
    let asked: Cow<'_, [Request]> = match known {
        0 => built.requests.as_slice().into(),
        _ => open.iter().map(|i| built.requests[*i].clone()).collect::<Vec<_>>().into(),
    };
    options.progress.requests(job, weight, &built.requests, known, &asked);
    let progress = &mut options.progress;
    let mut failed = None;
    let mut done = |index: usize, answer: &Scored| {
        let Some(request) = open.get(index).copied() else { return };
        if answer.log_likelihood.is_nan() || answer.log_likelihood == f64::INFINITY {
            failed.get_or_insert(Error::NotANumber {
                task: job.task.name,
                request,
                document: built.document[request],
            });
            return;
        }
        let written = journal.as_mut().map_or(Ok(()), |journal| journal.write(request, answer));
        if let Err(error) = written {
            failed.get_or_insert(error);
        }
        answers[request] = Some(*answer);
        progress.answered(&asked[index]);
    };
    let scored = match asked.is_empty() {
        true => Ok(()),
        false => scorer.score(&asked, &mut done).map_err(Error::scorer),
    };
    if let Some(error) = failed {
        return Err(error);
    }
    scored?;
    let missing = answers.iter().filter(|answer| answer.is_none()).count();
    if missing > 0 {
        return Err(Error::Unanswered { task: job.task.name, missing, requests: answers.len() });
    }
    Ok(answers.into_iter().flatten().collect())
}

/// What a document's right answer is, as a log of samples has it: the word, or the index of the choice.
#[must_use]
pub fn target(document: &Document) -> serde_json::Value {
    match document.contexts.len().max(document.continuations.len()) {
        1 => document.continuations[0].clone().into(),
        _ => document.target.into(),
    }
}
