//! `mtnlg train` with evaluation tasks: the metrics are those of `mtnlg eval` of the step's checkpoint, the training's bits those of a run without, in several layouts.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A corpus, a folder of two tasks, and a cache.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let write = |name: &str, count: usize, line: &dyn Fn(usize) -> Value| {
            let lines: String = (0..count).map(|i| format!("{}\n", line(i))).collect();
            fs::write(place.path(name), lines).unwrap();
        };
        let words = ["the", "model", "reads", "a", "text", "and", "writes", "another", "one", "then"];
        let word = |i: usize| words[i * i % 7 + i % 4];
        let text = |i: usize| (i..i + 120).map(word).collect::<Vec<_>>().join(" ");
        write("corpus.jsonl", 80, &|i| json!({ "text": text(i) }));
        fs::create_dir(place.path("sets")).unwrap();
        let piqa = |i: usize| json!({"goal": text(i)[..30 + i].trim(), "sol1": word(i), "sol2": text(3 * i)[..12].trim(), "label": i % 2});
        write("sets/piqa.jsonl", 33, &piqa);
        write("sets/piqa.train.jsonl", 20, &|i| piqa(i + 40));
        write(
            "sets/lambada_openai.jsonl",
            21,
            &|i| json!({ "text": format!("{} {}", text(i)[..50 + i].trim(), word(i + 1)) }),
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mtnlg(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
        command.args(args).current_dir(self.0.path()).env("MTNLG_CACHE", self.path("cache"));
        command.output().unwrap()
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.mtnlg(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        said(&output)
    }

    /// Six steps of a small model, with validations and checkpoints.
    fn train(&self, run: &str, more: &[&str]) -> String {
        let sets = [
            "model.layers=4",
            "model.hidden=16",
            "model.heads=4",
            "model.seq_len=64",
            "model.dropout=0.1",
            "data.tokenizer=bpe:300",
            "data.split=80,20,0",
            "train.valid_batches=1",
            "train.valid_every=2",
            "train.checkpoint_every=3",
            "train.lr=1e-2",
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let common =
            ["train", "--backend", "cpu", "--steps", "6", "--data", "corpus.jsonl", "--run-dir", run];
        self.done(&[&common[..], &sets, more].concat())
    }

    /// The lines of a run's metrics without what depends on the clock.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("tokens_per_second");
            line
        };
        text.lines().map(line).collect()
    }

    /// By task, examples and metric: what `mtnlg eval` says of a run's newest checkpoint.
    fn evaluated(&self, run: &str, more: &[&str]) -> Vec<(String, u64, String, f64)> {
        let checkpoint = format!("{run}/checkpoints/step-6");
        let common = [
            "eval",
            "--backend",
            "cpu",
            "--tasks",
            "piqa,lambada_openai",
            "--shots",
            "0,1",
            "--data",
            "sets",
        ];
        let lambada = ["--data", "lambada_openai.train=sets/lambada_openai.jsonl"];
        let files = [
            "--checkpoint",
            &checkpoint,
            "--json",
            "report.json",
            "--bootstraps",
            "1000",
            "--journal",
            "journal",
        ];
        self.done(&[&common[..], &lambada, &files, more].concat());
        let report: Value =
            serde_json::from_str(&fs::read_to_string(self.path("report.json")).unwrap()).unwrap();
        let results = report["results"].as_array().unwrap();
        let metric = |result: &Value, metric: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&result["task"]),
                result["shots"].as_u64().unwrap(),
                text(&metric["name"]),
                metric["value"].as_f64().unwrap(),
            )
        };
        let of = |result: &Value| -> Vec<_> {
            result["metrics"].as_array().unwrap().iter().map(|one| metric(result, one)).collect()
        };
        results.iter().flat_map(of).collect()
    }
}

const ASKED: [&str; 10] = [
    "--eval-tasks",
    "piqa,lambada_openai",
    "--eval-shots",
    "0,1",
    "--eval-data",
    "sets",
    "--eval-data",
    "lambada_openai.train=sets/lambada_openai.jsonl",
    "--eval-every",
    "2",
];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// What a line of metrics says of the tasks.
fn of_line(line: &Value) -> Vec<(String, u64, String, f64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let metric = |one: &Value| {
        let value = one["value"].as_f64().unwrap();
        (text(&one["task"]), one["shots"].as_u64().unwrap(), text(&one["metric"]), value)
    };
    line["evaluation"].as_array().map_or_else(Vec::new, |all| all.iter().map(metric).collect())
}

fn without_evaluation(lines: &[Value]) -> Vec<Value> {
    let mut lines = lines.to_vec();
    lines.iter_mut().for_each(|line| {
        line.as_object_mut().unwrap().remove("evaluation");
    });
    lines
}

/// Each layout with what it adds to the run, and to `mtnlg eval` of its checkpoint. Under invariant numerics the scores are the same bits.
#[test]
fn scores_are_those_of_eval_and_training_keeps_its_bits() {
    let place = Place::new();
    let invariant = ["--numerics", "invariant", "--set", "numerics.chunks=4"];
    let (one, eight) = (["1", "1", "1"], ["2", "2", "2"]);
    for (name, [tensor, pipeline, data], more, same) in [
        ("one", one, &[][..], ""),
        ("eight", eight, &[], "--tensor 2 --pipeline 2"),
        ("eight-invariant", eight, &invariant, "--tensor 2 --pipeline 2 --numerics invariant --chunks 4"),
        (
            "interleaved",
            eight,
            &[
                "--schedule",
                "interleaved",
                "--sharded-optimizer",
                "--sequence-parallel",
                "--precision",
                "bf16",
            ],
            "--tensor 2 --precision bf16",
        ),
    ] {
        let layout = ["--tensor", tensor, "--pipeline", pipeline, "--data-parallel", data];
        let args = [&layout[..], more].concat();
        let plain = format!("{name}-plain");
        place.train(&plain, &args);
        let words = place.train(name, &[&args[..], &ASKED].concat());
        assert!(words.contains("evaluation: piqa with no examples (66 requests"), "{words}");
        assert!(words.contains("evaluation of step 4: lambada_openai with 1 example: perplexity"), "{words}");
        let lines = place.metrics(name);
        let asked: Vec<usize> = (0..6).filter(|i| !of_line(&lines[*i]).is_empty()).collect();
        assert_eq!(asked, [1, 3, 5], "{name}");

        // Nothing but the evaluation is different.
        assert_eq!(without_evaluation(&lines), place.metrics(&plain), "{name}");
        let words = place.done(&["checkpoint", "diff", &plain, name]);
        assert!(words.contains("bit for bit"), "{name}: {words}");

        let flags: Vec<&str> = same.split_whitespace().collect();
        let (ours, theirs) = (of_line(&lines[5]), place.evaluated(name, &flags));
        assert_eq!((ours.len(), ours.len()), (theirs.len(), 8), "{name}");
        // Replicas answer shares of the requests, whose sums a step of another size may round otherwise, but for invariant numerics.
        let bound = match name {
            "eight-invariant" => 0.0,
            "interleaved" => 2e-2,
            _ => 1e-5,
        };
        for (own, other) in ours.iter().zip(&theirs) {
            assert_eq!((&own.0, own.1, &own.2), (&other.0, other.1, &other.2), "{name}");
            assert!((own.3 - other.3).abs() <= bound * other.3.abs(), "{name}: {own:?} {other:?}");
        }
        let report = fs::read_to_string(place.path(name).join("report.html")).unwrap();
        assert!(report.contains("<h2>Evaluation</h2>") && report.contains("80.96"), "{name}");
        let events = fs::read(place.path(name).join("events.out.tfevents.mtnlg")).unwrap();
        assert!(
            String::from_utf8_lossy(&events).contains("evaluation/lambada_openai/1-shot/perplexity"),
            "{name}"
        );
    }
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let place = Place::new();
    let args = [&["--tensor", "1", "--pipeline", "2", "--data-parallel", "2"][..], &ASKED].concat();
    place.train("whole", &args);
    place.train("resumed", &args);
    fs::remove_dir_all(place.path("resumed/checkpoints/step-6")).unwrap();
    let words = place.done(&["train", "--resume", "resumed"]);
    assert!(words.contains("going on after step 3") && words.contains("evaluation of step 4"), "{words}");
    assert_eq!(place.metrics("resumed"), place.metrics("whole"));
    assert!(place.done(&["checkpoint", "diff", "whole", "resumed"]).contains("bit for bit"));
}

#[test]
fn mistakes_are_told_before_anything_is_written() {
    let place = Place::new();
    fs::write(place.path("sets/wic.jsonl"), "{\"sentence1\": 3}\n").unwrap();
    for (flags, what) in [
        (&["--eval-tasks", "pika", "--eval-data", "sets"][..], "no task \"pika\""),
        (&["--eval-tasks", "boolq,hans", "--eval-data", "sets"], "2 files are not there"),
        (&["--eval-tasks", "wic", "--eval-data", "sets"], "wic.jsonl:1"),
        (&["--eval-tasks", "piqa", "--eval-data", "nowhere"], "is no folder"),
        (&["--eval-tasks", "piqa"], "evaluation.data is empty"),
        (&["--eval-tasks", "piqa", "--eval-data", "sets", "--eval-shots", "30"], "needs 31 documents"),
        (&["--eval-every", "5"], "evaluation.tasks is empty"),
    ] {
        let output = place.mtnlg(
            &[&["train", "--backend", "cpu", "--data", "corpus.jsonl", "--run-dir", "run"][..], flags]
                .concat(),
        );
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", said(&output));
        assert!(
            said(&output).contains(what) && !said(&output).contains("panicked"),
            "{flags:?}: {}",
            said(&output)
        );
        assert!(!place.path("run").exists() && !place.path("cache").exists(), "{flags:?}");
    }
    let plan = place.done(&[
        "train",
        "--dry-run",
        "--eval-tasks",
        "piqa",
        "--eval-data",
        "sets",
        "--eval-every",
        "5",
    ]);
    assert!(
        plan.contains("piqa with 0 examples, every 5 steps") && plan.contains("workspace  evaluation"),
        "{plan}"
    );
}
