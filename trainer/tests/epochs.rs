//! The loader at the end of an epoch: whatever the batch, and wherever a run is taken up again, the samples are those that
//! Megatron-Core draws, and the epochs are where its rule puts them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::indexed::{TokenType, Writer};
use data::split::Part;
use serde_json::Value;
use trainer::batch::{Batch, BatchRamp, Step};
use trainer::engine::{Prefetch, Samples, Shelf};

/// What Megatron-Core read (`data/tests/fixtures/from_megatron.py`): from one set, all its documents in the training part.
struct Reading {
    lengths: Vec<u32>,
    sequence: usize,
    seed: u32,
    rows: Vec<Vec<u32>>,
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as u32).collect()
}

fn reading(name: &str) -> Reading {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/fixtures/megatron.json");
    let tables: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    let readings = tables["readings"].as_array().unwrap();
    let reading = readings.iter().find(|reading| reading["name"] == name).unwrap();
    assert_eq!((&reading["split"], reading["wanted"][0].as_u64()), (&"1,0,0".into(), Some(0)));
    Reading {
        lengths: numbers(&reading["sets"][0]["lengths"]),
        sequence: reading["sequence"].as_u64().unwrap() as usize,
        seed: reading["seed"].as_u64().unwrap() as u32,
        rows: reading["rows"].as_array().unwrap().iter().map(numbers).collect(),
    }
}

impl Reading {
    /// The pair: at every place another token, 0, 1, 2, ….
    fn write(&self, prefix: &Path) {
        let mut writer = Writer::create(prefix, TokenType::U16).unwrap();
        let mut next = 0;
        for &length in &self.lengths {
            writer.document(&(next..next + length).collect::<Vec<_>>()).unwrap();
            next += length;
        }
        writer.finish().unwrap();
    }

    fn open(&self, prefix: &Path) -> BlendedDataset {
        BlendedDataset::open(&BlendConfig {
            sets: vec![BlendSet { prefix: prefix.to_owned(), weight: 1.0 }],
            split: "1,0,0".parse().unwrap(),
            part: Part::Train,
            sequence: self.sequence,
            samples: Some(self.rows.len() as u64),
            seed: self.seed,
            vocab_size: 1 << 16,
        })
        .unwrap()
    }

    /// What the steps that begin at `consumed` samples or later read, through the reader beside the step, announced as the run's loop does.
    fn train(&self, prefix: &Path, batch: Batch, consumed: u64) -> Vec<Vec<u32>> {
        let data = self.open(prefix);
        let end = self.rows.len() as u64;
        let ends = |step: &Step| step.first_sample + step.samples as u64;
        let (shelf, mut read) = (Shelf::default(), Vec::new());
        std::thread::scope(|scope| {
            let samples = Prefetch::start(scope, &shelf, &data, self.sequence + 1);
            let steps = batch.steps().skip_while(|step| step.first_sample < consumed);
            for step in steps.take_while(|step| ends(step) <= end) {
                let next = ends(&step);
                let last = (next + batch.global_batch(next) as u64).min(end);
                samples.announce(step.first_sample, next..last);
                for index in step.first_sample..next {
                    let mut tokens = vec![u32::MAX; self.sequence + 1];
                    samples.read(index, &mut tokens).unwrap();
                    read.push(tokens);
                }
            }
        });
        read
    }

    /// Tokens of an epoch, epochs, and samples before the last of them, by the rule of the paper's software: as few epochs as hold `n s + 1` tokens.
    fn epochs(&self) -> (usize, usize, usize) {
        let tokens = self.lengths.iter().sum::<u32>() as usize;
        let epochs = (1..).find(|epochs| (epochs * tokens - 1) / self.sequence >= self.rows.len()).unwrap();
        (tokens, epochs, ((epochs - 1) * tokens - 1) / self.sequence)
    }
}

/// How often each token is an input of these samples.
fn counts(rows: &[Vec<u32>]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for &token in rows.iter().flat_map(|row| &row[..row.len() - 1]) {
        *counts.entry(token).or_default() += 1;
    }
    counts
}

fn batches() -> Vec<Batch> {
    let constant = [1, 2, 3, 4, 7, 8, 32].map(|full| Batch::new(full, BatchRamp::default()));
    let ramped = Batch::new(8, BatchRamp { start: 2, increment: 2, samples: 18 });
    constant.into_iter().chain([ramped]).collect()
}

#[test]
fn any_batch_reads_the_same_sequence_across_epochs() {
    for name in ["apart", "together"] {
        let (folder, reading) = (tempfile::tempdir().unwrap(), reading(name));
        let prefix = folder.path().join("pair");
        reading.write(&prefix);
        let (_, epochs, before_last) = reading.epochs();
        assert!(epochs > 2 && before_last < reading.rows.len(), "{name} crosses the end of an epoch");
        for batch in batches() {
            let read = reading.train(&prefix, batch, 0);
            assert!(read.len() + batch.full() > reading.rows.len(), "no whole step is left out");
            assert_eq!(read, reading.rows[..read.len()], "{name}, {batch:?}");
        }
    }
}

/// Taken up at every step in turn, the one that begins with an epoch's first sample among them.
#[test]
fn a_run_goes_on_exactly_where_it_was() {
    let (folder, reading) = (tempfile::tempdir().unwrap(), reading("apart"));
    let prefix = folder.path().join("pair");
    reading.write(&prefix);
    let (_, _, before_last) = reading.epochs();
    let mut at_the_end = 0;
    // A batch that divides the samples before the last epoch ends a step there.
    let divisors = (1..=before_last).filter(|size| before_last.is_multiple_of(*size) && *size <= 8);
    let batches = batches().into_iter().chain(divisors.map(|full| Batch::new(full, BatchRamp::default())));
    for batch in batches {
        let whole = reading.train(&prefix, batch, 0);
        let ends = batch.steps().map(|step| step.first_sample as usize);
        for consumed in ends.take_while(|&consumed| consumed <= whole.len()) {
            at_the_end += usize::from(consumed == before_last);
            assert_eq!(
                reading.train(&prefix, batch, consumed as u64),
                whole[consumed..],
                "{batch:?} from {consumed}"
            );
        }
    }
    assert!(at_the_end > 1, "a run was taken up at the epoch's end");
}

/// Of a last epoch that is drawn apart no token is read before all others have been read as often: the epochs' shares are those of the rule.
#[test]
fn the_last_epoch_begins_where_the_rule_says() {
    let reading = reading("apart");
    let (tokens, epochs, before_last) = reading.epochs();
    let per_epoch = (tokens - 1) / reading.sequence;
    let of_the_last = reading.rows.len() - before_last;
    assert!(of_the_last < per_epoch * 4 / 5, "the last epoch is drawn apart");
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("pair");
    reading.write(&prefix);
    let read = reading.train(&prefix, Batch::new(1, BatchRamp::default()), 0);
    let (first, last) = read.split_at(before_last);
    // The first samples hold every token once for each whole epoch, but for those at the end that do not fill a sample: they come with the last epoch.
    let left = (epochs - 1) * tokens - before_last * reading.sequence;
    let first = counts(first);
    assert_eq!(first.values().sum::<usize>() + left, (epochs - 1) * tokens);
    assert!(left <= reading.sequence && first.values().all(|&count| count < epochs));
    assert_eq!(
        first.values().map(|count| epochs - 1 - count).sum::<usize>() + (tokens - first.len()) * (epochs - 1),
        left
    );
    // In the last epoch none is read twice, but for what was left.
    let last = counts(last);
    assert!(last.values().filter(|&&count| count > 1).count() <= left);
    assert!(first.iter().all(|(token, count)| count + last.get(token).copied().unwrap_or(0) <= epochs));
}

/// Past the last sample of the run there is none, and it is said.
#[test]
fn behind_the_last_sample_there_is_none() {
    let (folder, reading) = (tempfile::tempdir().unwrap(), reading("together"));
    let prefix = folder.path().join("pair");
    reading.write(&prefix);
    let (data, shelf) = (reading.open(&prefix), Shelf::default());
    let end = reading.rows.len() as u64;
    std::thread::scope(|scope| {
        let samples = Prefetch::start(scope, &shelf, &data, reading.sequence + 1);
        samples.announce(end - 1, end - 1..end + 2);
        let mut tokens = vec![0; reading.sequence + 1];
        samples.read(end - 1, &mut tokens).unwrap();
        assert_eq!(Some(&tokens), reading.rows.last());
        let error = samples.read(end, &mut tokens).unwrap_err();
        assert!(error.contains(&end.to_string()), "{error}");
    });
}
