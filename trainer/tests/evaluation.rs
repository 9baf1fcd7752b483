//! `mtnlg eval` and `mtnlg probe` on a small GPT-2: the answers are those of `mtnlg score`, a second run is the journal's, and each mistake has its answer.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn mtnlg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtnlg")).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn done(args: &[&str]) -> String {
    let output = mtnlg(args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A run with the fixture's model, and a folder of two small tasks.
fn place() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (run, data) = (dir.path().join("run"), dir.path().join("sets"));
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    done(&["checkpoint", "import", text(&fixture), "--output", text(&run)]);
    fs::create_dir(&data).unwrap();
    let lines = |count: usize, line: &dyn Fn(usize) -> Value| -> String {
        (0..count).map(|i| format!("{}\n", line(i))).collect()
    };
    let piqa = |i: usize| json!({"goal": format!("go {i}"), "sol1": "up", "sol2": "a b", "label": i % 2});
    fs::write(data.join("piqa.jsonl"), lines(6, &piqa)).unwrap();
    fs::write(data.join("piqa.train.jsonl"), lines(20, &|i| piqa(i + 100))).unwrap();
    let lambada = |i: usize| json!({"text": format!("a{i} b c")});
    fs::write(data.join("lambada_openai.jsonl"), lines(5, &lambada)).unwrap();
    (dir, run, data)
}

#[test]
fn answers_are_those_of_score() {
    let (dir, run, data) = place();
    let (report, samples) = (dir.path().join("r.json"), dir.path().join("s.jsonl"));
    let common = [
        "eval",
        "--checkpoint",
        text(&run),
        "--data",
        text(&data),
        "--backend",
        "cpu",
        "--bootstraps",
        "100",
    ];
    let files = ["--json", text(&report), "--log-samples", text(&samples), "--tasks", "lambada_openai"];
    let words = done(&[&common[..], &files].concat());
    assert!(words.contains("lambada_openai") && words.contains("76.56"), "{words}");
    let first: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let lines: Vec<Value> = fs::read_to_string(&samples)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5);
    let requests = dir.path().join("requests.jsonl");
    let request = |line: &Value| {
        format!("{}\n", json!({"context": line["context"], "continuation": line["continuation"]}))
    };
    fs::write(&requests, lines.iter().map(request).collect::<String>()).unwrap();
    let answers = dir.path().join("answers.jsonl");
    let score = ["score", "--checkpoint", text(&run), "--backend", "cpu", "--requests", text(&requests)];
    done(&[&score[..], &["--output", text(&answers)]].concat());
    for (line, answer) in lines.iter().zip(fs::read_to_string(&answers).unwrap().lines()) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let (own, other) =
            (line["log_likelihood"].as_f64().unwrap(), answer["log_likelihood"].as_f64().unwrap());
        assert!((own - other).abs() <= 1e-5 * other.abs(), "{line} {answer}");
        assert_eq!((&line["tokens"], &line["is_greedy"]), (&answer["tokens"], &answer["is_greedy"]));
    }
    // Again: everything is in the journal, and the report's numbers are the same.
    let words = done(&[&common[..], &files].concat());
    assert!(words.contains("5 of 5 answers are in the journal"), "{words}");
    let again: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(again["results"][0]["metrics"], first["results"][0]["metrics"]);
    // With examples, on two ranks.
    let shots = ["--tasks", "piqa", "--shots", "0,1", "--tensor", "2", "--html", text(&report)];
    let words = done(&[&common[..], &shots].concat());
    assert!(words.contains("acc_norm") && words.contains("80.96"), "{words}");
    assert!(fs::read_to_string(&report).unwrap().contains("tensor 2, pipeline 1"));
}

/// A word of more tokens than the model has positions is scored as far as it fits, and the report says so.
#[test]
fn a_word_longer_than_the_model_is_cut() {
    let (dir, run, data) = place();
    let long = "xqzjv".repeat(30);
    let line = |word: &str| format!("{}\n", json!({ "text": format!("a b {word}") }));
    fs::write(data.join("lambada_openai.jsonl"), line("c") + &line(&long)).unwrap();
    let samples = dir.path().join("s.jsonl");
    let common = ["eval", "--checkpoint", text(&run), "--data", text(&data), "--backend", "cpu"];
    let words =
        done(&[&common[..], &["--tasks", "lambada_openai", "--log-samples", text(&samples)]].concat());
    assert!(words.contains("all documents; 1 request lost its beginning"), "{words}");
    assert!(words.contains("1 of 2 requests are longer than the model's sequence"), "{words}");
    let samples = fs::read_to_string(&samples).unwrap();
    let second: Value = serde_json::from_str(samples.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["tokens"], 24, "as many as there are positions");
}

#[test]
fn mistakes_and_formats() {
    let (_dir, run, data) = place();
    assert!(done(&["eval", "--formats"]).contains("winogrande_xl_validation.jsonl"));
    for (more, what) in [
        (&["--tasks", "wic,boolq"][..], "2 files are not there"),
        (&["--tasks", "wick"], "no task \"wick\""),
        (&["--tasks", "piqa", "--shots", "30"], "needs 31 documents"),
        (&["--tasks", "piqa", "--tensor", "3"], "cannot be cut in 3 equal parts"),
    ] {
        let common = ["eval", "--checkpoint", text(&run), "--data", text(&data), "--backend", "cpu"];
        let output = mtnlg(&[&common[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(what), "{}", said(&output));
    }
    let output = mtnlg(&["eval", "--checkpoint", "nowhere", "--data", text(&data), "--tasks", "piqa"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(mtnlg(&["eval", "--data", text(&data)]).status.code(), Some(2));
}

#[test]
fn probes_write_a_report() {
    let (dir, run, _) = place();
    let report = dir.path().join("p.json");
    let args = ["probe", "--checkpoint", text(&run), "--backend", "cpu", "--samples", "1", "--problems", "2"];
    let words = done(&[&args[..], &["--shots", "1", "--json", text(&report)]].concat());
    assert!(words.contains("addition") && words.contains("nurse") && words.contains("The Hindu"), "{words}");
    let first = fs::read_to_string(&report).unwrap();
    done(&[&args[..], &["--shots", "1", "--json", text(&report)]].concat());
    assert_eq!(fs::read_to_string(&report).unwrap(), first, "the same seed, the same text");
}
