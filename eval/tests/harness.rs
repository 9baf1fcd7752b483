//! Requests, draws and metrics against lm-evaluation-harness's own: `fixtures/harness.py` wrote what is compared.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;

use common::{made_up, shared};
use eval::documents::{self, Set};
use eval::journal::digest;
use eval::metrics::measure;
use eval::python::random::Random;
use eval::scorer::Request;
use eval::shots::Sampler;
use eval::tasks::{Task, by_names};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    draws: Draws,
    cases: Vec<Case>,
    measured: Vec<Measured>,
}

#[derive(Deserialize)]
struct Draws {
    seed: u32,
    samples: Vec<Vec<usize>>,
    choices: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
struct Case {
    task: String,
    file: String,
    train: Option<String>,
    shots: usize,
    limit: Option<usize>,
    requests: usize,
    blake3: String,
}

#[derive(Deserialize)]
struct Measured {
    task: String,
    file: String,
    /// Value and standard error.
    metrics: BTreeMap<String, (f64, f64)>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/harness.json")).unwrap()
}

#[test]
fn python_draws_the_same() {
    let Draws { seed, samples, choices } = fixture().draws;
    let mut random = Random::new(seed);
    let sizes = [(10, 3), (100, 33), (5000, 16), (40, 40), (1 << 20, 51)];
    for ((n, k), expected) in sizes.into_iter().zip(samples) {
        assert_eq!(random.sample(n, k), expected, "{k} of {n}");
    }
    for expected in choices {
        assert_eq!(expected.iter().map(|_| random.choice(1000)).collect::<Vec<_>>(), expected);
    }
}

fn requests(task: &'static Task, set: &Set, pool: &Set, shots: usize, limit: usize) -> Vec<Request> {
    let mut sampler = (shots > 0).then(|| Sampler::new(task, pool, shots, 1234).unwrap());
    let ask = |document: &documents::Document| {
        let drawn = sampler.as_mut().map(|sampler| sampler.draw(document).unwrap()).unwrap_or_default();
        let examples: String = drawn.iter().map(|i| pool.documents[*i].example.as_str()).collect();
        document.requests(&examples)
    };
    set.documents.iter().take(limit).flat_map(ask).collect()
}

/// Every request of the full sets, zero-shot and one-shot, and of 200 documents with the most shots: the same texts in the same order.
#[test]
fn the_requests_are_the_harness_s() {
    let Some(folder) = shared() else { return };
    let mut wrong = Vec::new();
    let mut sets: BTreeMap<(String, String), Set> = BTreeMap::new();
    let cases = fixture().cases;
    assert_eq!(cases.len(), 30);
    for case in cases {
        let task = by_names(&case.task).unwrap()[0];
        let train = case.train.unwrap_or_else(|| case.file.clone());
        for file in [&case.file, &train] {
            let read = || documents::read(task, &folder.join(file)).unwrap();
            sets.entry((case.task.clone(), file.clone())).or_insert_with(read);
        }
        let set = |file: &String| &sets[&(case.task.clone(), file.clone())];
        let requests =
            requests(task, set(&case.file), set(&train), case.shots, case.limit.unwrap_or(usize::MAX));
        if requests.len() != case.requests || digest(&requests) != case.blake3 {
            wrong.push(format!("{} with {} shots: {} requests", case.task, case.shots, requests.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Made-up answers to the requests of the full sets: metrics and standard errors as the harness computes them.
#[test]
fn the_metrics_are_the_harness_s() {
    let Some(folder) = shared() else { return };
    let all = fixture().measured;
    assert_eq!(all.len(), 10);
    for Measured { task, file, metrics } in all {
        let task = by_names(&task).unwrap()[0];
        let set = documents::read(task, &folder.join(file)).unwrap();
        let answers: Vec<_> = requests(task, &set, &set, 0, usize::MAX).iter().map(made_up).collect();
        let ours = measure(task, &set.documents, &answers, 2000);
        assert_eq!(ours.len(), metrics.len(), "{}", task.name);
        for metric in ours {
            let (value, stderr) = metrics[&metric.name];
            for (ours, theirs) in [(metric.value.unwrap(), value), (metric.stderr.unwrap(), stderr)] {
                assert!(
                    (ours - theirs).abs() <= 1e-11 * theirs,
                    "{} {}: {ours} {theirs}",
                    task.name,
                    metric.name
                );
            }
        }
    }
}
