//! Near duplicates against brute-force Jaccard similarity on a planted corpus; exact ones; the order of sets; crowds.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use common::{apply, set, words};
use data::dedup::{Dedup, DedupConfig, MinHasher, jaccard, shingles};
use data::mt19937::RandomState;

/// 1 - (1 - s^13)^20: how likely a pair of similarity `s` meets in a band.
fn meets(s: f64) -> f64 {
    1.0 - (1.0 - s.powi(13)).powi(20)
}

/// 300 originals of 400 words, and of each a copy in which a share of the words is replaced: similarities from 1 down to 0.6.
fn planted() -> Vec<String> {
    let mut random = RandomState::new(11);
    let mut documents = Vec::new();
    for i in 0..300 {
        let original = words(&mut random, 400, 5000);
        let mut copy = original.clone();
        for _ in 0..i % 20 {
            let at = random.interval(399) as usize;
            copy[at] = format!("other{}", random.interval(5000));
        }
        documents.push(original.join(" "));
        documents.push(copy.join(" ") + ".");
    }
    documents
}

#[test]
fn recall_and_precision_against_brute_force() {
    let documents = planted();
    let sets: Vec<Vec<u32>> = documents.iter().map(|text| shingles(text, 5)).collect();
    let mut pairs = Vec::new();
    for a in 0..sets.len() {
        for b in 0..a {
            let similarity = jaccard(&sets[a], &sets[b]);
            if similarity >= 0.8 {
                pairs.push((b, a, similarity));
            }
        }
    }
    assert!(pairs.len() > 100, "{} pairs", pairs.len());
    let folder = tempfile::tempdir().unwrap();
    let mut step = Dedup::new(DedupConfig::default(), Some(folder.path().join("scratch"))).unwrap();
    let (manifest, kept) = apply(&mut step, &[set("a", &documents)], &folder.path().join("out"));
    let kept: std::collections::HashSet<&str> = kept[0].iter().map(|record| record.text.as_str()).collect();
    let dropped: Vec<usize> =
        (0..documents.len()).filter(|&i| !kept.contains(documents[i].as_str())).collect();
    // Precision: every pair is verified, so that each dropped document has one before it that is as similar as asked.
    for &i in &dropped {
        assert!(pairs.iter().any(|&(_, a, _)| a == i), "document {i} is like none before it");
    }
    // Recall: as the theory of the bands has it, pair by pair.
    let found = pairs.iter().filter(|(_, a, _)| dropped.contains(a)).count();
    let expected: f64 = pairs.iter().map(|&(_, _, s)| meets(s)).sum();
    let sigma = pairs.iter().map(|&(_, _, s)| meets(s) * (1.0 - meets(s))).sum::<f64>().sqrt();
    println!("{found} of {} pairs found, {expected:.1} expected", pairs.len());
    assert!(
        (found as f64 - expected).abs() <= 4.0 * sigma + 1.0,
        "{found} found, {expected} expected, sigma {sigma}"
    );
    let sure: Vec<_> = pairs.iter().filter(|(_, _, s)| *s >= 0.9).collect();
    let found_sure = sure.iter().filter(|(_, a, _)| dropped.contains(a)).count();
    assert!(found_sure as f64 >= 0.98 * sure.len() as f64, "{found_sure} of {}", sure.len());
    let count = &manifest.sets[0].tally.dropped["near duplicate"];
    assert_eq!(count.documents as usize, dropped.len());
}

#[test]
fn bands_meet_as_often_as_they_should() {
    // 160 shingles shared of 200 in all.
    let hasher = MinHasher::new(20, 13);
    let mut random = RandomState::new(5);
    let mut draw = |n: usize| -> Vec<u32> { (0..n).map(|_| random.next_u32()).collect() };
    let trials = 400;
    let mut met = 0;
    for _ in 0..trials {
        let shared = draw(160);
        let [a, b] = [draw(20), draw(20)].map(|own| {
            let mut all = [&shared[..], &own[..]].concat();
            all.sort_unstable();
            all
        });
        assert!((jaccard(&a, &b) - 0.8).abs() < 1e-9);
        met += usize::from(hasher.bands(&a).iter().zip(hasher.bands(&b)).any(|(a, b)| *a == b));
    }
    let share = met as f64 / f64::from(trials);
    assert!((share - meets(0.8)).abs() < 0.1, "{share} for {}", meets(0.8));
}

#[test]
fn the_first_of_the_highest_set_stays() {
    let mut random = RandomState::new(2);
    let long: Vec<String> = (0..4).map(|_| words(&mut random, 100, 1000).join(" ")).collect();
    let first = [long[0].clone(), long[1].clone() + " end", long[2].clone()];
    // A near copy of [1], an exact one of [0], and something new, twice.
    let second = [long[1].clone(), long[0].clone(), long[3].clone(), long[3].clone()];
    let folder = tempfile::tempdir().unwrap();
    let sets = [set("first", &first), set("second", &second)];
    let mut step = Dedup::new(DedupConfig::default(), None).unwrap();
    let (manifest, kept) = apply(&mut step, &sets, &folder.path().join("out"));
    let texts = |i: usize| kept[i].iter().map(|record| record.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(0), first);
    assert_eq!(texts(1), [long[3].clone()]);
    let dropped = &manifest.sets[1].tally.dropped;
    assert_eq!((dropped["exact duplicate"].documents, dropped["near duplicate"].documents), (2, 1));
    assert!(manifest.sets[0].tally.dropped.is_empty());
    // Exact alone leaves the near copy.
    let exact = DedupConfig { fuzzy: false, ..DedupConfig::default() };
    let mut step = Dedup::new(exact, None).unwrap();
    let (_, kept) = apply(&mut step, &sets, &folder.path().join("exact"));
    assert_eq!(kept[1].len(), 2);
}

#[test]
fn a_crowd_of_copies_is_one() {
    // More than are compared in all pairs, each with one word changed.
    let mut random = RandomState::new(4);
    let original = words(&mut random, 300, 1000);
    let mut documents = Vec::new();
    for i in 0..500usize {
        let mut copy = original.clone();
        copy[i % 300] = format!("changed{i}");
        documents.push(copy.join(" "));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut step = Dedup::new(DedupConfig::default(), None).unwrap();
    let (_, kept) = apply(&mut step, &[set("a", &documents)], &folder.path().join("out"));
    assert_eq!(kept[0].len(), 1);
    assert_eq!(kept[0][0].text, documents[0]);
}

#[test]
fn mistakes() {
    let config = DedupConfig::default();
    for wrong in [
        DedupConfig { jaccard: 0.0, ..config },
        DedupConfig { jaccard: f64::NAN, ..config },
        DedupConfig { bands: 0, ..config },
        DedupConfig { ngram: 0, ..config },
    ] {
        assert!(Dedup::new(wrong, None).is_err(), "{wrong:?}");
    }
}
