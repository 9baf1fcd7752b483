//! Sample orders and blends as properties, and samples read through files.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::Error;
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::indexed::{TokenType, Writer};
use data::order::SampleOrder;
use data::split::Part;
use proptest::prelude::*;
use std::path::Path;

proptest! {
    #[test]
    fn every_token_once_an_epoch(
        lengths in prop::collection::vec(0u32..50, 1..30), s in 1usize..40, samples in prop::option::of(1u64..60), seed: u32,
    ) {
        let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let order = SampleOrder::build(&lengths, 0..lengths.len(), s, samples, seed).unwrap();
        if tokens == 0 {
            prop_assert!(order.is_empty());
            return Ok(());
        }
        if let Some(samples) = samples {
            prop_assert!(order.len() as u64 >= samples);
            let one_less = (order.epochs() - 1) * tokens;
            prop_assert!(order.epochs() == 1 || (one_less - 1) / (s as u64) < samples, "no epoch too many");
        }
        prop_assert_eq!(order.len() as u64, (order.epochs() * tokens).saturating_sub(1) / s as u64);

        // The stream that samples are cut from: every document, as often as there are epochs.
        let mut times = vec![0u64; lengths.len()];
        let mut stream = Vec::new();
        for document in order.document_index() {
            times[document] += 1;
            stream.extend((0..lengths[document] as usize).map(|token| (document, token)));
        }
        prop_assert!(times.iter().all(|&count| count == order.epochs()));

        // Drawn samples are a permutation of the windows of that stream, which share one token with their neighbours.
        let mut seen = vec![false; order.len()];
        for (i, &sample) in order.shuffle_index().iter().enumerate() {
            let sample = sample as usize;
            prop_assert!(!std::mem::replace(&mut seen[sample], true));
            let read: Vec<_> = order.pieces(i).unwrap()
                .flat_map(|piece| (piece.start..piece.start + piece.len).map(move |token| (piece.document, token)))
                .collect();
            prop_assert_eq!(&read[..], &stream[sample * s..=(sample + 1) * s]);
        }
        prop_assert!(order.pieces(order.len()).is_none());
    }
}

/// A pair whose token at every place is different: `base`, `base + 1`, ….
fn write(prefix: &Path, base: u32, lengths: &[usize]) {
    let mut writer = Writer::create(prefix, TokenType::U16).unwrap();
    let mut next = base;
    for &length in lengths {
        writer.document(&(next..next + length as u32).collect::<Vec<_>>()).unwrap();
        next += length as u32;
    }
    writer.finish().unwrap();
}

fn config(folder: &Path, part: Part, samples: Option<u64>) -> BlendConfig {
    let sets = [("a", 3.0), ("b", 1.0)];
    BlendConfig {
        sets: sets.map(|(name, weight)| BlendSet { prefix: folder.join(name), weight }).to_vec(),
        split: "8,1,1".parse().unwrap(),
        part,
        sequence: 4,
        samples,
        seed: 11,
        vocab_size: 20_000,
    }
}

#[test]
fn samples_are_a_function_of_their_number() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a"), 0, &[7; 40]);
    write(&folder.path().join("b"), 10_000, &[5; 3]);
    let open = || BlendedDataset::open(&config(folder.path(), Part::Train, Some(100))).unwrap();
    let (forwards, backwards) = (open(), open());
    let all: Vec<_> = (0..100).map(|i| forwards.sample(i).unwrap()).collect();
    for i in (0..100).rev() {
        assert_eq!(backwards.sample(i).unwrap(), all[i as usize]);
        let from_b = all[i as usize][0] >= 10_000;
        assert_eq!((all[i as usize].len(), forwards.set_of(i)), (5, Some(usize::from(from_b))));
    }
    // Train holds the first 32 documents of a, the first 2 of b (of 10 tokens: many epochs).
    assert!(all.iter().flatten().all(|&token| token < 32 * 7 || (10_000..10_010).contains(&token)));
    assert_eq!((0..100).filter(|&i| forwards.set_of(i) == Some(1)).count(), 25);
    assert!(matches!(forwards.sample(100), Err(Error::OutOfRange { .. })));
    assert_eq!(forwards.set_of(100), None);
}

#[test]
fn a_set_without_a_part_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a"), 0, &[7; 40]);
    write(&folder.path().join("b"), 10_000, &[5; 1]);
    let valid = BlendedDataset::open(&config(folder.path(), Part::Valid, None)).unwrap();
    assert_eq!(valid.len(), (4 * 7 - 1) / 4);
    assert!((0..valid.len()).all(|i| valid.set_of(i) == Some(0)));
    assert!(
        (0..valid.len())
            .flat_map(|i| valid.sample(i).unwrap())
            .all(|token| (32 * 7..36 * 7).contains(&token))
    );

    write(&folder.path().join("a"), 0, &[7; 1]);
    let error = BlendedDataset::open(&config(folder.path(), Part::Valid, Some(3))).unwrap_err();
    assert!(matches!(error, Error::EmptySplit { part: Part::Valid, documents: 2, tokens: 0, .. }), "{error}");
}

#[test]
fn a_token_outside_the_vocabulary_is_placed() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a"), 0, &[10, 10]);
    let mut config = config(folder.path(), Part::Train, None);
    config.sets.truncate(1);
    config.vocab_size = 12;
    let data = BlendedDataset::open(&config).unwrap();
    let error = (0..data.len()).find_map(|i| data.sample(i).err()).unwrap();
    // Token t stands at place t.
    let right = matches!(error, Error::TokenOutOfVocabulary { token, position, vocab_size: 12, .. } if token as u64 == position && token >= 12);
    assert!(right, "{error}");
}
