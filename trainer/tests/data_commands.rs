//! `mtnlg data` as a user runs it: the commands in a chain, the answer to mistakes, and training on what was built.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn mtnlg(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
    command.current_dir(dir).env("MTNLG_CACHE", dir.join("cache")).args(arguments).output().unwrap()
}

fn succeeds(dir: &Path, arguments: &[&str]) -> String {
    let output = mtnlg(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(dir, arguments)).unwrap()
}

/// Ends with 2 and one message that holds `parts`.
fn refuses(dir: &Path, arguments: &[&str], parts: &[&str]) {
    let output = mtnlg(dir, arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty() && !message.contains("panicked"), "{message}");
    for part in parts {
        assert!(message.contains(part), "{arguments:?}: no {part:?} in {message}");
    }
}

fn documents(n: usize) -> String {
    let line = |i: usize| {
        let text = format!(
            "The number {i} comes before the number {} and after all of those that are less than it is. ",
            i + 1
        );
        serde_json::json!({"id": i, "text": text.repeat(1 + i % 4) + &format!("It is {}.", i * i)})
            .to_string()
            + "\n"
    };
    (0..n).map(line).collect()
}

#[test]
fn a_chain_of_commands() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines = documents(300);
    std::fs::write(
        dir.join("raw.jsonl"),
        format!("{lines}{{\"text\": 1}}\n{}", lines.lines().next().unwrap()),
    )
    .unwrap();
    let cleaned = json(dir, &["data", "clean", "raw.jsonl", "--output", "clean", "--json"]);
    assert_eq!((&cleaned["complete"], &cleaned["sets"][0]["tally"]["bad"]), (&true.into(), &1.into()));
    let said = succeeds(dir, &["data", "dedup", "clean", "--output", "once", "--exact", "--threads", "2"]);
    assert!(said.contains("raw: 300 of 301 documents"), "{said}");
    assert!(succeeds(dir, &["data", "verify", "once"]).contains("sound, 1 parts"));
    let made =
        json(dir, &["data", "tokenize", "--input", "once", "--append-eod", "--output", "pair", "--json"]);
    assert_eq!((&made["documents"], &made["bad"]), (&300.into(), &0.into()));
    let verified = json(dir, &["data", "verify", "pair", "--tokenizer", "gpt2", "--json"]);
    assert_eq!(
        (&verified[0]["pair"]["tokens"], &verified[0]["pair"]["without_end"]),
        (&made["tokens"], &0.into())
    );
    assert_eq!(verified[0]["pair"]["largest_token"], 50_256);

    let order = ["--seq", "64", "--seed", "1234", "--split", "969,30,1", "--num-samples", "10000"];
    let rows = json(dir, &[&["data", "inspect", "pair", "--samples", "0..8", "--json"], &order[..]].concat());
    let rows = rows.as_array().unwrap();
    assert!(rows.len() == 8 && rows.iter().all(|row| row.as_array().unwrap().len() == 65));
    let more = json(dir, &[&["data", "inspect", "pair", "--samples", "3..5", "--json"], &order[..]].concat());
    assert_eq!(more.as_array().unwrap()[..], rows[3..5]);
    let one = json(dir, &[&["data", "inspect", "pair", "--sample", "3", "--json"], &order[..]].concat());
    assert_eq!(one["tokens"], rows[3]);
    let text = succeeds(dir, &[&["data", "inspect", "pair", "--sample", "3"], &order[..]].concat());
    assert!(text.contains("--- document ") && text.contains("comes before the number"), "{text}");

    let blend = [
        "data",
        "blend",
        "0.75=pair",
        "0.25=pair",
        "--num-samples",
        "40",
        "--seq",
        "64",
        "--output",
        "b",
        "--json",
    ];
    let blend = json(dir, &blend);
    assert_eq!((&blend[0]["samples"], &blend[1]["samples"]), (&30.into(), &10.into()));
    let index = std::fs::read(dir.join("b.dataset_index.npy")).unwrap();
    assert!(index.starts_with(b"\x93NUMPY") && index.len() == 128 + 40 * 2);
}

/// The rows are those of Megatron-Core's own data set, from the same pair (`data/tests/fixtures/from_megatron.py`).
#[test]
fn rows_are_megatrons() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/fixtures/megatron.json");
    let tables: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    let reading =
        tables["readings"].as_array().unwrap().iter().find(|reading| reading["name"] == "inspect").unwrap();
    let mut writer = data::indexed::Writer::create(&dir.join("pair"), data::indexed::TokenType::U16).unwrap();
    let mut next = 0;
    for length in reading["sets"][0]["lengths"].as_array().unwrap() {
        let length = length.as_u64().unwrap() as u32;
        writer.document(&(next..next + length).collect::<Vec<_>>()).unwrap();
        next += length;
    }
    writer.finish().unwrap();
    let asked = ["data", "inspect", "pair", "--samples", "0..8", "--seq", "64", "--seed", "1234"];
    let more = ["--split", "969,30,1", "--num-samples", "10000", "--json"];
    let rows = json(dir, &[&asked[..], &more[..]].concat());
    assert_eq!(rows.as_array().unwrap().len(), 8);
    assert_eq!(rows, reading["rows"]);
}

#[test]
fn mistakes_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("raw.jsonl"), "{\"text\": 1}\n").unwrap();
    std::fs::write(dir.join("a.bin"), "").unwrap();
    refuses(dir, &["data", "clean", "nowhere", "--output", "out"], &["nowhere does not exist"]);
    refuses(dir, &["data", "clean", "raw.jsonl", "--output", "."], &["holds the input", "--output"]);
    refuses(
        dir,
        &["data", "clean", "raw.jsonl", "--output", "out", "--bad-limit", "0"],
        &["raw.jsonl", "offset 0", "line 1"],
    );
    refuses(dir, &["data", "dedup", "raw.jsonl", "--output", "o", "--jaccard", "2"], &["jaccard is 2"]);
    refuses(
        dir,
        &["data", "decontaminate", "raw.jsonl", "--output", "o", "--against", "x"],
        &["--against", "NAME=PATH"],
    );
    refuses(dir, &["data", "extract", "raw.jsonl", "--output", "o", "--language", "xx"], &["language is xx"]);
    refuses(dir, &["data", "tokenize", "--input", "raw.jsonl", "--output", "missing/p"], &["missing"]);
    refuses(
        dir,
        &["data", "tokenize", "--input", "raw.jsonl", "--output", "p", "--tokenizer", "t.json"],
        &["t.json"],
    );
    refuses(dir, &["data", "inspect", "raw.jsonl", "--sample", "0"], &["no tokens", "tokenize"]);
    refuses(dir, &["data", "inspect", "a", "--sample", "0"], &["a.idx"]);
    refuses(dir, &["data", "inspect", "a", "--samples", "8..0"], &["8..0", "0..8"]);
    refuses(dir, &["data", "build", "nowhere.toml", "--output", "o"], &["nowhere.toml"]);
    assert!(!dir.join("p.bin").exists() && !dir.join("p.idx").exists());
}

#[test]
fn a_built_corpus_is_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("raw.jsonl"), documents(400)).unwrap();
    let recipe = "tokenizer = \"bpe:300\"\n[[set]]\nname = \"numbers\"\nweight = 1.0\ninputs = [\"raw.jsonl\"]\n[dedup]\nfuzzy = false\n";
    std::fs::write(dir.join("recipe.toml"), recipe).unwrap();
    let said = succeeds(dir, &["data", "build", "recipe.toml", "--output", "corpus"]);
    assert!(said.contains("numbers: 400 documents") && said.contains("corpus/report.html"), "{said}");
    let mut train =
        vec!["train", "--config", "corpus/train.toml", "--run-dir", "run", "--backend", "cpu", "--json"];
    let small = [
        "model.layers=4",
        "model.hidden=32",
        "model.heads=4",
        "model.seq_len=32",
        "model.vocab=384",
        "train.steps=2",
        "train.micro_batch=1",
        "train.valid_batches=1",
    ];
    small.iter().for_each(|set| train.extend(["--set", set]));
    let summary = json(dir, &train);
    assert_eq!(summary["steps"], 2, "{summary}");
}
