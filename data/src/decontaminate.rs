//! `decontaminate`: what the evaluation tasks ask is cut out of the training text, by Megatron's rules (Smith et al. 2022, after Brown et al. 2020, appendix C).
//!
//! A task's document gives its 13-grams of lower-case words; one of 8 to 12 words is a single n-gram, a shorter one gives none. An n-gram that the training text has
//! ten times or more is common speech and is left alone. Where another is found, it goes with 200 characters either side of it, out to the next sentence end. Of the pieces
//! those of 200 characters or fewer go, and a document that is cut more than ten times goes as a whole.

use crate::input::{Files, Format, InputFile, read_items};
use crate::record::Record;
use crate::step::{Mark, Outcome, Place, Progress, Set, Step, Watch, field};
use crate::words::{Word, mix, words};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow::Continue;
use std::ops::Range;
use std::path::Path;

/// Fields of a task's JSON lines that are documents of it, where none are named.
pub const FIELDS: &[&str] = &[
    "text",
    "article",
    "passage",
    "question",
    "premise",
    "hypothesis",
    "context",
    "ctx",
    "query",
    "goal",
    "sol1",
    "sol2",
    "sentence",
    "sentence1",
    "sentence2",
];

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecontaminateConfig {
    /// Words of an n-gram.
    pub ngram: usize,
    /// Fewest words of a document that is one n-gram.
    pub shortest: usize,
    /// Occurrences in the training text from which an n-gram is common.
    pub common: u32,
    /// Characters that go either side.
    pub either_side: usize,
    /// Pieces of so many characters or fewer go.
    pub smallest_piece: usize,
    /// A document that is cut more often goes.
    pub most_cuts: usize,
}

impl Default for DecontaminateConfig {
    fn default() -> Self {
        DecontaminateConfig {
            ngram: 13,
            shortest: 8,
            common: 10,
            either_side: 200,
            smallest_piece: 200,
            most_cuts: 10,
        }
    }
}

/// An evaluation task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its documents: JSON lines, or texts.
    pub files: Files,
    /// Fields of the lines that are documents; `None`: those of [`FIELDS`] that are there.
    pub fields: Option<Vec<String>>,
}

/// What is known of an n-gram of a task.
#[derive(Debug, Clone, Copy)]
struct Ngram {
    index: u32,
    /// The tasks that have it, a bit each.
    tasks: u64,
}

/// The step.
#[derive(Debug)]
pub struct Decontaminate {
    config: DecontaminateConfig,
    names: Vec<String>,
    ngrams: HashMap<u64, Ngram>,
    /// A bit for the hash of each n-gram's first words: most places of a text are passed over by it.
    beginnings: Vec<u64>,
    /// Times that each n-gram is in the training text.
    seen: Vec<u32>,
    hash: String,
    notes: Vec<String>,
}

/// Bits of the table of beginnings: 2 MiB.
const TABLE_BITS: u32 = 24;

impl Decontaminate {
    /// Against these tasks.
    ///
    /// # Errors
    /// [`Error::EmptyCorpus`] for a task without a document in the named fields; [`Error::OutOfRange`] for more than 64 tasks; [`Error::BadRecord`]; [`Error::Io`].
    pub fn new(config: DecontaminateConfig, tasks: &[Task]) -> Result<Self> {
        if tasks.is_empty() || tasks.len() > 64 {
            let (value, expected) = (tasks.len().to_string(), "1 to 64".to_owned());
            return Err(Error::OutOfRange { name: "number of evaluation tasks", value, expected });
        }
        let mut this = Decontaminate {
            config,
            names: tasks.iter().map(|task| task.name.clone()).collect(),
            ngrams: HashMap::new(),
            beginnings: vec![0; 1 << (TABLE_BITS - 6)],
            seen: Vec::new(),
            hash: String::new(),
            notes: Vec::new(),
        };
        let mut hasher = blake3::Hasher::new();
        for (t, task) in tasks.iter().enumerate() {
            let mut documents = 0;
            field(&mut hasher, task.name.as_bytes());
            for file in &task.files.0 {
                for_each_document(file, task.fields.as_deref(), &mut |text| {
                    documents += 1;
                    field(&mut hasher, text.as_bytes());
                    this.add(t, text);
                })?;
            }
            if documents == 0 {
                let fields =
                    task.fields.clone().map_or_else(|| FIELDS.join(", "), |fields| fields.join(", "));
                return Err(Error::EmptyCorpus {
                    path: task.name.clone().into(),
                    reason: format!("no line of the task has a text in a field {fields}"),
                    remedy: "name its fields, for example --against NAME=FILE:field,field",
                });
            }
        }
        this.hash = hasher.finalize().to_hex().to_string();
        this.seen = vec![0; this.ngrams.len()];
        Ok(this)
    }

    fn add(&mut self, task: usize, text: &str) {
        let hashes: Vec<u64> = words(text).map(|word| word.hash).collect();
        let DecontaminateConfig { ngram, shortest, .. } = self.config;
        let n = hashes.len().min(ngram);
        if n < shortest {
            return;
        }
        for gram in hashes.windows(n) {
            let start = gram[..shortest].iter().fold(0, |hash, &word| mix(hash, word));
            let bit = start >> (64 - TABLE_BITS);
            self.beginnings[(bit >> 6) as usize] |= 1 << (bit & 63);
            let key = self.key(gram[shortest..].iter().fold(start, |hash, &word| mix(hash, word)), n);
            let index = self.ngrams.len() as u32;
            self.ngrams.entry(key).or_insert(Ngram { index, tasks: 0 }).tasks |= 1 << task;
        }
    }

    fn key(&self, hash: u64, n: usize) -> u64 {
        mix(hash, n as u64)
    }

    /// The tasks' n-grams that a text has, by the word at which they begin and their number of words.
    fn found<'a>(&'a self, words: &'a [Word]) -> impl Iterator<Item = (usize, usize, Ngram)> + 'a {
        let DecontaminateConfig { ngram, shortest, .. } = self.config;
        let last = (words.len() + 1).saturating_sub(shortest);
        (0..last).flat_map(move |at| {
            let start = words[at..at + shortest].iter().fold(0, |hash, word| mix(hash, word.hash));
            let bit = start >> (64 - TABLE_BITS);
            let possible = self.beginnings[(bit >> 6) as usize] >> (bit & 63) & 1 == 1;
            let longest = if possible { ngram.min(words.len() - at) } else { 0 };
            let mut hash = start;
            (shortest..=longest).filter_map(move |n| {
                if n > shortest {
                    hash = mix(hash, words[at + n - 1].hash);
                }
                self.ngrams.get(&self.key(hash, n)).map(|&found| (at, n, found))
            })
        })
    }

    /// The first n-gram of a text that is to be cut: its bytes and tasks.
    fn first(&self, text: &str) -> Option<(Range<usize>, u64)> {
        let words: Vec<Word> = words(text).collect();
        let rare = |found: &Ngram| self.seen[found.index as usize] < self.config.common;
        let (at, n, found) = self.found(&words).find(|(_, _, found)| rare(found))?;
        Some((words[at].start..words[at + n - 1].end, found.tasks))
    }
}

/// Hand on the documents of a task's file.
fn for_each_document(file: &InputFile, fields: Option<&[String]>, sink: &mut dyn FnMut(&str)) -> Result<()> {
    let mut failed = None;
    read_items(file, &mut |(raw, _)| {
        let result = match file.format {
            Format::Jsonl => raw.json().map(|line| {
                line.map(|line| match fields {
                    Some(fields) => {
                        fields.iter().filter_map(|name| line.get(name)?.as_str()).for_each(&mut *sink)
                    }
                    None => FIELDS.iter().filter_map(|&name| line.get(name)?.as_str()).for_each(&mut *sink),
                })
            }),
            _ => raw.parse().map(|record| record.map(|record| sink(&record.text))),
        };
        if let Some(Err(bad)) = result {
            failed = Some(bad);
        }
        failed.is_none()
    })?;
    failed.map_or(Ok(()), |bad| Err(Error::BadRecord { bad }))
}

/// The text before and after a cut: `either_side` characters further than `found` and out to a sentence end.
fn split(text: &str, found: &Range<usize>, either_side: usize) -> (Range<usize>, Range<usize>) {
    let ends = |c: char| matches!(c, '.' | '!' | '?');
    let left =
        text[..found.start].char_indices().rev().nth(either_side.saturating_sub(1)).map_or(0, |(at, _)| at);
    let head =
        text[..left].char_indices().rev().find(|&(_, c)| ends(c)).map_or(0, |(at, c)| at + c.len_utf8());
    let right =
        text[found.end..].char_indices().nth(either_side).map_or(text.len(), |(at, _)| found.end + at);
    let tail = text[right..]
        .char_indices()
        .find(|&(_, c)| ends(c))
        .map_or(text.len(), |(at, c)| right + at + c.len_utf8());
    (0..head, tail..text.len())
}

impl Step for Decontaminate {
    fn name(&self) -> &'static str {
        "decontaminate"
    }

    fn options(&self) -> Value {
        let DecontaminateConfig { ngram, shortest, common, either_side, smallest_piece, most_cuts } =
            self.config;
        json!({
            "tasks": self.names, "documents": self.hash, "ngram": ngram, "shortest": shortest, "common": common,
            "either_side": either_side, "smallest_piece": smallest_piece, "most_cuts": most_cuts,
        })
    }

    fn learns(&self) -> bool {
        true
    }

    fn learn(&mut self, sets: &[Set], _: &Path, progress: &mut Watch<'_>) -> Result<()> {
        let total: u64 = sets.iter().map(|set| set.files.bytes()).sum();
        let mut done = 0;
        let mut seen = vec![0u32; self.ngrams.len()];
        for files in sets.iter().flat_map(Set::parts) {
            files.stream(
                |_, record| -> Vec<u32> {
                    let Ok(record) = record else { return Vec::new() };
                    let words: Vec<Word> = words(&record.text).collect();
                    self.found(&words).map(|(_, _, found)| found.index).collect()
                },
                &mut |found: Vec<u32>, read| {
                    done += read;
                    for index in found {
                        let count = &mut seen[index as usize];
                        *count = count.saturating_add(1);
                    }
                    let doing = "decontaminate: counting".to_owned();
                    progress(Progress { doing, done: done.min(total), total });
                    Ok(Continue(()))
                },
            )?;
        }
        self.seen = seen;
        let common = |count: &&u32| **count >= self.config.common;
        let there = self.seen.iter().filter(|count| **count > 0).count();
        self.notes = vec![format!(
            "{} n-grams of {} tasks; {there} of them are in the text, {} so often that they are common",
            self.ngrams.len(),
            self.names.len(),
            self.seen.iter().filter(common).count()
        )];
        Ok(())
    }

    fn apply(&self, _: Place, record: Record) -> Outcome {
        let DecontaminateConfig { either_side, smallest_piece, most_cuts, .. } = self.config;
        let mut outcome = Outcome::default();
        let mut pieces: Vec<&str> = Vec::new();
        let mut rest = record.text.as_str();
        let mut cuts = 0;
        let large = |text: &str| text.chars().nth(smallest_piece).is_some();
        let small =
            |text: &str| Mark::new(true, format!("piece of {smallest_piece} characters or fewer"), text);
        while let Some((found, tasks)) = self.first(rest) {
            cuts += 1;
            let (head, tail) = split(rest, &found, either_side);
            let gone = &rest[head.end..tail.start];
            for (_, name) in self.names.iter().enumerate().filter(|(t, _)| tasks >> t & 1 == 1) {
                let sample = rest[found.clone()].to_owned();
                let (dropped, reason, bytes) = (false, format!("cut for {name}"), gone.len() as u64);
                outcome.marks.push(Mark { dropped, reason, bytes, sample });
            }
            let head = &rest[head];
            if large(head) {
                pieces.push(head);
            } else if !head.trim().is_empty() {
                outcome.marks.push(small(head));
            }
            rest = &rest[tail];
        }
        if cuts == 0 {
            return Outcome::keep(record);
        }
        if cuts > most_cuts {
            outcome.marks.push(Mark::new(true, format!("cut more than {most_cuts} times"), &record.text));
            return outcome;
        }
        if large(rest) {
            pieces.push(rest);
        } else if !rest.trim().is_empty() {
            outcome.marks.push(small(rest));
        }
        if pieces.is_empty() {
            outcome.marks.push(Mark::new(true, "nothing left", &record.text));
        }
        outcome.kept = pieces
            .into_iter()
            .enumerate()
            .map(|(i, text)| Record {
                id: format!("{}/{}", record.id, i + 1),
                text: text.trim().to_owned(),
                html: false,
                meta: record.meta.clone(),
            })
            .collect();
        outcome
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
