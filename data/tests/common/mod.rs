//! What the tests of the pipeline share.

#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::input::Source;
use data::mt19937::RandomState;
use data::record::Record;
use data::step::{Manifest, Set, Step, run};
use std::path::Path;

/// A set of the documents in memory.
pub fn set(name: &str, documents: &[String]) -> Set {
    let kind = data::input::SourceKind::Memory(documents.to_vec().into());
    let source = Source { name: name.to_owned(), weight: None, kind };
    Set { name: name.to_owned(), files: source.files().unwrap() }
}

/// The set of a file or folder.
pub fn set_at(path: &Path) -> Set {
    let source = Source::parse(&path.display().to_string()).unwrap();
    Set { files: source.files().unwrap(), name: source.name }
}

/// Runs a step; its manifest, and the records that came out of each set.
pub fn apply(step: &mut dyn Step, sets: &[Set], output: &Path) -> (Manifest, Vec<Vec<Record>>) {
    let manifest = run(step, sets, output, None, &mut |_| {}).unwrap();
    let records = manifest.sets(output).iter().map(records).collect();
    (manifest, records)
}

/// All records of a set.
pub fn records(set: &Set) -> Vec<Record> {
    let mut all = Vec::new();
    set.files
        .records(&mut |record| {
            all.push(record);
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
    all
}

/// A text of `n` words drawn from a vocabulary of `vocabulary`.
pub fn words(random: &mut RandomState, n: usize, vocabulary: u32) -> Vec<String> {
    (0..n).map(|_| format!("w{}", random.interval(vocabulary - 1))).collect()
}

/// A sentence-wise English-like text from a list of real words.
pub fn prose(random: &mut RandomState, sentences: usize) -> String {
    const WORDS: &[&str] = &[
        "the", "river", "town", "of", "people", "and", "a", "house", "in", "that", "old", "was", "to",
        "stone", "winter", "had", "come", "before", "light", "they", "garden", "with", "bread", "from",
        "music", "were", "quiet", "road", "north", "for", "her", "brother", "letter", "at", "sea", "he",
        "clock", "is", "morning", "market", "by", "small", "window", "which", "story", "on", "green",
        "mountain", "never", "again",
    ];
    let mut text = String::new();
    for _ in 0..sentences {
        let n = 8 + random.interval(8) as usize;
        let sentence: Vec<&str> =
            (0..n).map(|_| WORDS[random.interval(WORDS.len() as u32 - 1) as usize]).collect();
        text.push_str(&sentence.join(" "));
        text.push_str(". ");
    }
    text
}
