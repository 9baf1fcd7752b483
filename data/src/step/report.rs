//! What a step counted.

use super::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Samples that are kept of a reason.
const SAMPLES: usize = 3;

/// Documents and bytes in and out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents that were read.
    pub documents_in: u64,
    /// Bytes of their text.
    pub bytes_in: u64,
    /// Documents that went on.
    pub documents_out: u64,
    /// Bytes of their text.
    pub bytes_out: u64,
    /// Records that could not be read.
    pub bad: u64,
    /// What was dropped, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, Count>,
    /// What was changed, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<String, Count>,
}

/// What a reason accounts for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Documents, or places in them.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// The first of them.
    pub samples: Vec<Sample>,
}

/// A document that something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name.
    pub id: String,
    /// How its text begins, or the place in question.
    pub text: String,
}

impl Tally {
    /// Count what became of a record.
    pub fn add(&mut self, id: &str, bytes: u64, outcome: &Outcome) {
        self.documents_in += 1;
        self.bytes_in += bytes;
        self.documents_out += outcome.kept.len() as u64;
        self.bytes_out += outcome.kept.iter().map(|record| record.text.len() as u64).sum::<u64>();
        for mark in &outcome.marks {
            let counts = if mark.dropped { &mut self.dropped } else { &mut self.changed };
            let count = counts.entry(mark.reason.clone()).or_default();
            count.documents += 1;
            count.bytes += mark.bytes;
            if count.samples.len() < SAMPLES {
                count.samples.push(Sample { id: id.to_owned(), text: mark.sample.clone() });
            }
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Tally) -> Self {
        self.documents_in += other.documents_in;
        self.bytes_in += other.bytes_in;
        self.documents_out += other.documents_out;
        self.bytes_out += other.bytes_out;
        self.bad += other.bad;
        for (mine, theirs) in [(&mut self.dropped, &other.dropped), (&mut self.changed, &other.changed)] {
            for (reason, count) in theirs {
                let sum = mine.entry(reason.clone()).or_default();
                sum.documents += count.documents;
                sum.bytes += count.bytes;
                let room = SAMPLES - sum.samples.len();
                sum.samples.extend(count.samples.iter().take(room).cloned());
            }
        }
        self
    }
}
