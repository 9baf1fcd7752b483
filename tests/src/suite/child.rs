//! The child's side: some cases of one group, a line before and a line after each.

use std::io::Write;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::report::{Record, Status, Worst};
use super::{Selection, groups, lacks, words};
use crate::measure::SPREAD;
use crate::{Failure, Measure, Subject};

/// A line of the child's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The device that it has opened.
    Device(String),
    /// The place in the group and the id of the case that begins.
    Begin(usize, String),
    /// How it ended.
    End(Box<Record>),
}

/// Exit code of a child whose device is beyond use after the case that it has reported.
pub const LOST: u8 = 3;

/// Runs the cases of the group from the `from`-th on; returns the exit code.
pub fn run<S: Subject>(subject: &S, group: &str, from: usize, selection: &Selection) -> u8 {
    let say = |line: &Line| {
        let text = serde_json::to_string(line).expect("a line has only JSON's types");
        let mut out = std::io::stdout().lock();
        // A parent that is gone needs no answer.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    };
    let backend = match subject.open() {
        Ok(backend) => backend,
        Err(error) => {
            eprintln!("{error}");
            return 2;
        }
    };
    say(&Line::Device(super::device(&*backend)));
    let Some((name, cases)) = groups::<S>().into_iter().find(|(name, _)| *name == group) else { return 2 };
    for (index, case) in cases().into_iter().enumerate().skip(from) {
        let id = case.id();
        if !selection.has(index, &id) {
            continue;
        }
        say(&Line::Begin(index, id.clone()));
        let begin = Instant::now();
        let result = case.run(subject, &backend);
        let mut record = Record {
            id,
            group: name.to_owned(),
            status: Status::Pass,
            ratio: None,
            worst: None,
            nmse: None,
            spread: None,
            seconds: begin.elapsed().as_secs_f64(),
            reason: None,
        };
        let mut lost = false;
        match result {
            Ok(measure) => measured(&mut record, &measure),
            Err(failure) => {
                let (reason, gone) = words(&failure);
                lost = gone;
                record.reason = Some(reason);
                record.status = match (gone, lacks(&failure) && case.optional()) {
                    (true, _) => Status::Crash,
                    (_, true) => Status::Unsupported,
                    _ => Status::Fail,
                };
                failed(&mut record, &failure);
            }
        }
        say(&Line::End(Box::new(record)));
        if lost {
            return LOST;
        }
    }
    0
}

fn measured(record: &mut Record, measure: &Measure) {
    let Measure { ratio, operand, index, observed, expected, limit, nmse, spread } = *measure;
    record.ratio = Some(ratio);
    if !operand.is_empty() {
        record.worst = Some(worst(operand, index, observed, expected, limit));
        record.nmse = Some(nmse);
        record.spread = spread;
    }
}

fn failed(record: &mut Record, failure: &Failure) {
    match *failure {
        Failure::Wrong { operand, index, observed, expected, limit, .. } => {
            let ratio = (f64::from(observed) - expected).abs() / limit;
            record.ratio = ratio.is_finite().then_some(ratio);
            record.worst = Some(worst(operand, index, observed, expected, limit));
        }
        Failure::Spread { nmse, spread, .. } => {
            (record.nmse, record.spread) = (Some(nmse), Some(spread));
            record.ratio = Some(spread / SPREAD);
        }
        _ => {}
    }
}

fn worst(operand: &str, index: usize, observed: f32, expected: f64, limit: f64) -> Worst {
    Worst {
        operand: operand.to_owned(),
        index,
        observed: format!("{observed:e}"),
        expected: format!("{expected:e}"),
        limit: format!("{limit:e}"),
    }
}
