//! Against Megatron-Core and NumPy: `fixtures/from_megatron.py` makes the expected values with their own code.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::blend::{Blend, normalize};
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::indexed::{IndexedDataset, TokenType, Writer};
use data::input::Files;
use data::mt19937::RandomState;
use data::order::SampleOrder;
use data::split::{Part, Split};
use data::tokenize::tokenize;
use data::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn rows(table: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("megatron.json")).unwrap();
    let rows = serde_json::from_str::<Value>(&text).unwrap()[table].as_array().unwrap().clone();
    assert!(!rows.is_empty());
    rows
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn shuffles() {
    for row in rows("shuffles") {
        let expected = numbers(&row["shuffled"]);
        let mut values: Vec<u64> = (0..expected.len() as u64).collect();
        RandomState::new(row["seed"].as_u64().unwrap() as u32).shuffle(&mut values);
        assert_eq!(values, expected, "seed {}", row["seed"]);
    }
}

#[test]
fn splits() {
    for row in rows("splits") {
        let split: Split = row["split"].as_str().unwrap().parse().unwrap();
        let documents = row["documents"].as_u64().unwrap() as usize;
        for (part, edges) in
            [Part::Train, Part::Valid, Part::Test].into_iter().zip(row["edges"].as_array().unwrap())
        {
            let range = split.range(part, documents);
            match edges {
                // A part with no share.
                Value::Null => assert!(range.is_empty(), "{part} of {row}"),
                edges => {
                    assert_eq!(vec![range.start as u64, range.end as u64], numbers(edges), "{part} of {row}")
                }
            }
        }
    }
}

#[test]
fn orders() {
    let mut separate = 0;
    for row in rows("orders") {
        let lengths: Vec<u32> = numbers(&row["lengths"]).iter().map(|&length| length as u32).collect();
        let number = |name: &str| row[name].as_u64().unwrap();
        let documents = number("start") as usize..number("stop") as usize;
        let (samples, seed) = (row["samples"].as_u64(), number("seed") as u32);
        let order =
            SampleOrder::build(&lengths, documents, number("sequence") as usize, samples, seed).unwrap();
        let document_index: Vec<u64> = order.document_index().map(|document| document as u64).collect();
        assert_eq!(document_index, numbers(&row["document_index"]), "{row}");
        let sample_index: Vec<Vec<u64>> =
            order.sample_index().map(|(entry, token)| vec![entry.into(), token.into()]).collect();
        let expected: Vec<Vec<u64>> = row["sample_index"].as_array().unwrap().iter().map(numbers).collect();
        assert_eq!(sample_index, expected, "{row}");
        let shuffle_index: Vec<u64> = order.shuffle_index().iter().map(|&sample| sample.into()).collect();
        assert_eq!(shuffle_index, numbers(&row["shuffle_index"]), "{row}");
        separate += usize::from(order.epochs() > 1);
    }
    assert!(separate > 3, "the fixtures have several epochs");
}

#[test]
fn blends() {
    for row in rows("blends") {
        let weights = floats(&row["weights"]);
        let bits: Vec<u64> = normalize(&weights).unwrap().iter().map(|weight| weight.to_bits()).collect();
        assert_eq!(bits, numbers(&row["normalized"]), "{weights:?}");
        let (set, index) = (numbers(&row["set"]), numbers(&row["index"]));
        same_blend(&Blend::weighted(&weights, set.len() as u64).unwrap(), &set, &index);
    }
    for row in rows("exhaustive") {
        same_blend(
            &Blend::exhaustive(&numbers(&row["sizes"])).unwrap(),
            &numbers(&row["set"]),
            &numbers(&row["index"]),
        );
    }
}

fn same_blend(blend: &Blend, set: &[u64], index: &[u64]) {
    let ours: Vec<_> =
        (0..blend.len()).map(|i| blend.get(i).unwrap()).map(|(d, j)| (d as u64, j as u64)).collect();
    let theirs: Vec<_> = set.iter().copied().zip(index.iter().copied()).collect();
    assert_eq!(ours, theirs);
}

/// Samples from files on disk, as Megatron's builder of data sets gives them: the split, the epochs and the blend together.
#[test]
fn readings() {
    for row in rows("readings") {
        let folder = tempfile::tempdir().unwrap();
        let number = |name: &str| row[name].as_u64().unwrap();
        let mut next = 0;
        let mut sets = Vec::new();
        for (i, set) in row["sets"].as_array().unwrap().iter().enumerate() {
            let prefix = folder.path().join(i.to_string());
            let mut writer = Writer::create(&prefix, TokenType::U16).unwrap();
            for length in numbers(&set["lengths"]) {
                let length = u32::try_from(length).unwrap();
                writer.document(&(next..next + length).collect::<Vec<_>>()).unwrap();
                next += length;
            }
            writer.finish().unwrap();
            sets.push(BlendSet { prefix, weight: set["weight"].as_f64().unwrap() });
        }
        let data = BlendedDataset::open(&BlendConfig {
            sets,
            split: row["split"].as_str().unwrap().parse().unwrap(),
            part: Part::Train,
            sequence: number("sequence") as usize,
            samples: Some(number("samples")),
            seed: number("seed") as u32,
            vocab_size: 1 << 16,
        })
        .unwrap();
        let wanted = numbers(&row["wanted"]);
        let expected = row["rows"].as_array().unwrap();
        assert_eq!(expected.len() as u64, wanted[1] - wanted[0]);
        for (i, expected) in (wanted[0]..wanted[1]).zip(expected) {
            let sample: Vec<u64> = data.sample(i).unwrap().into_iter().map(u64::from).collect();
            assert_eq!(sample, numbers(expected), "sample {i} of {}", row["name"]);
        }
    }
}

#[test]
fn lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.jsonl");
    let lines =
        ["Hello world", "", "caf\u{e9}\n", ""].map(|text| serde_json::json!({"text": text}).to_string());
    std::fs::write(&path, lines.join("\n")).unwrap();
    let files = Files::of_paths([path]).unwrap();
    let prefix = folder.path().join("lines");
    let made = tokenize(&files, &Tokenizer::gpt2(), true, &prefix, Some(0), &mut |_| {}).unwrap();
    assert_eq!((made.documents, made.empty, made.tokens), (4, 2, 8));
    for name in ["lines.bin", "lines.idx"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(folder.path()), read(&fixtures()), "{name}, byte for byte");
    }
    assert_eq!(IndexedDataset::open(&prefix).unwrap().documents(), 4);
}

#[test]
fn files() {
    let documents: [&[u32]; 3] = [&[5, 6, 7, 0], &[0], &[65499, 1, 0]];
    let theirs = IndexedDataset::open(&fixtures().join("tiny")).unwrap();
    assert_eq!((theirs.documents(), theirs.tokens(), theirs.token_type()), (3, 8, TokenType::U16));
    for (i, document) in documents.iter().enumerate() {
        assert_eq!(theirs.sequence(i).unwrap(), *document);
    }
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("tiny");
    let mut writer = Writer::create(&prefix, TokenType::U16).unwrap();
    for document in documents {
        writer.document(document).unwrap();
    }
    writer.finish().unwrap();
    for name in ["tiny.bin", "tiny.idx"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(folder.path()), read(&fixtures()), "{name}, byte for byte");
    }
}
