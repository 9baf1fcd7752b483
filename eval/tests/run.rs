//! Whole runs with made-up answers: files in, reports out, interruptions between.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use common::{MadeUp, made_up};
use eval::cli::EvalArgs;
use eval::documents;
use eval::report::{self, Report, Subject};
use eval::scorer::{Counter, Request, Scored, Scorer};
use eval::shots::too_many;
use eval::tasks::by_names;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The command as a program has it: what says which model may be left out where only the formats are asked for.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    model: Option<Model>,
    #[command(flatten)]
    eval: EvalArgs,
}

#[derive(Args)]
struct Model {
    #[arg(long)]
    checkpoint: String,
    #[arg(long, default_value = "auto")]
    backend: String,
}

fn command(arguments: &[&str]) -> Result<Command, clap::Error> {
    Command::try_parse_from([&["eval"], arguments].concat())
}

fn arguments(arguments: &[&str]) -> EvalArgs {
    command(arguments).unwrap().eval
}

fn subject() -> Subject {
    Subject {
        model: "made up".into(),
        checkpoint: "runs/<none>".into(),
        backend: "nothing".into(),
        key: "0123".into(),
    }
}

/// Runs it, and gives the report's text.
fn run<S: Scorer>(args: &EvalArgs, mut scorer: S, journal: &Path) -> eval::Result<String> {
    args.prepare()?.run(&mut scorer, &subject(), journal).map(|report| report::text::report(&report))
}

/// A folder with two small tasks, one of them with examples.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines = |count: usize, line: &dyn Fn(usize) -> Value| -> String {
        (0..count).map(|i| format!("{}\n", line(i))).collect()
    };
    let wic = |i: usize| json!({"sentence1": format!("Run {i} runs."), "sentence2": "A run.", "start1": 0, "end1": 3, "label": i % 2});
    fs::write(folder.path().join("wic.jsonl"), lines(12, &wic)).unwrap();
    fs::write(folder.path().join("wic.train.jsonl"), lines(40, &wic)).unwrap();
    let lambada =
        |i: usize| json!({"text": format!("Number {i} is the last of all {}", "words".repeat(1 + i % 3))});
    fs::write(folder.path().join("lambada_openai_test.jsonl"), lines(9, &lambada)).unwrap();
    folder
}

fn path(folder: &TempDir, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    let text = path.display().to_string();
    (path, text)
}

#[test]
fn a_run_and_its_files() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let (json, json_text) = path(&out, "r.json");
    let (html, html_text) = path(&out, "r.html");
    let (samples, samples_text) = path(&out, "s.jsonl");
    let data_text = data.path().display().to_string();
    let common = ["--checkpoint", "c", "--data", &data_text, "--bootstraps", "50", "--json", &json_text];
    let more = ["--html", &html_text, "--log-samples", &samples_text, "--limit", "10"];
    let tasks = ["--tasks", "wic", "--shots", "0,1,few,1"];
    let args = arguments(&[&common[..], &more[..], &tasks[..]].concat());
    let text = run(&args, MadeUp::new(), out.path()).unwrap();
    let report: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let settings: Vec<usize> = report.results.iter().map(|result| result.shots).collect();
    assert_eq!(settings, [0, 1, 32]);
    // The headline says what was run; the numbers are those of the made-up answers.
    assert!(
        text.contains("made up (runs/<none>) on nothing; shots 0, 1, few; only the first 10 documents"),
        "{text}"
    );
    assert!(
        text.contains("48.59") && text.contains("58.46") && text.contains("not the tasks' scores"),
        "{text}"
    );
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("runs/&lt;none&gt;") && page.contains("only the first 10 documents"));
    assert!(!page.contains("http") && !page.contains("<script"), "the page needs nothing from elsewhere");

    let wic = by_names("wic").unwrap()[0];
    let set = documents::read(wic, &data.path().join("wic.jsonl")).unwrap();
    let lines: Vec<Value> = fs::read_to_string(&samples)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3 * 10 * 2);
    let mut right = 0;
    for (i, line) in lines[..20].iter().enumerate() {
        let request = &set.documents[i / 2].requests("")[i % 2];
        assert_eq!(line["context"], json!(request.context));
        assert_eq!(line["continuation"], json!(request.continuation));
        assert_eq!(line["log_likelihood"], json!(made_up(request).log_likelihood));
        assert_eq!(
            (&line["doc_id"], &line["target"], &line["task"]),
            (&json!(i / 2), &json!((i / 2) % 2), &json!("wic"))
        );
        assert!(line.get("examples").is_none());
        let values = set.documents[i / 2]
            .requests("")
            .iter()
            .map(|request| made_up(request).log_likelihood)
            .collect::<Vec<_>>();
        right += usize::from(i % 2 == 0 && usize::from(values[1] > values[0]) == (i / 2) % 2);
    }
    assert_eq!(report.results[0].metrics[0].value, Some(right as f64 / 10.0));
    // Examples come from the training file, in the order that is recorded, and never the document itself.
    let pool = documents::read(wic, &data.path().join("wic.train.jsonl")).unwrap();
    for line in &lines[20..] {
        let examples: Vec<usize> = serde_json::from_value(line["examples"].clone()).unwrap();
        let texts: String = examples.iter().map(|i| pool.documents[*i].example.as_str()).collect();
        let document = &set.documents[line["doc_id"].as_u64().unwrap() as usize];
        assert_eq!(line["context"], json!(format!("{texts}{}", document.contexts[0])));
        assert!(examples.iter().all(|i| pool.documents[*i].source != document.source));
        assert_eq!(examples.iter().collect::<HashSet<_>>().len(), examples.len());
        assert_eq!(json!(examples.len()), line["shots"]);
    }
    assert!(report.results[1].examples_order_hash != report.results[2].examples_order_hash);
}

#[test]
fn an_interrupted_run_goes_on() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let data_text = data.path().display().to_string();
    let (json, json_text) = path(&out, "r.json");
    let args = arguments(&[
        "--checkpoint",
        "c",
        "--data",
        &data_text,
        "--tasks",
        "lambada_openai,wic",
        "--json",
        &json_text,
        "--bootstraps",
        "50",
    ]);
    let journal = out.path().join("journal");
    let mut scorer = MadeUp::new();
    scorer.fails_after = Some(5);
    let error = run(&args, scorer, &journal).unwrap_err();
    assert_eq!(error.to_string(), "the model is gone");
    assert!(!error.is_user() && !json.exists(), "a run without its end writes no report");
    // The next run asks for the other four words and all of the second task, whose journal has a first line of its own.
    let before = journal_lines(&journal);
    run(&args, MadeUp::new(), &journal).unwrap();
    assert_eq!(journal_lines(&journal) - before, 4 + 24 + 1);
    let resumed: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    // Now all is known: a scorer that can do nothing is enough.
    let mut dead = MadeUp::new();
    dead.fails_after = Some(0);
    run(&args, dead, &journal).unwrap();
    let again: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    run(&args, MadeUp::new(), &out.path().join("another")).unwrap();
    let whole: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    for report in [&resumed, &again] {
        for (one, other) in report.results.iter().zip(&whole.results) {
            assert_eq!(one.metrics, other.metrics);
        }
    }
}

/// Lines of all journals, their headers too.
fn journal_lines(folder: &Path) -> usize {
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    files.map(|text| text.lines().count()).sum()
}

#[test]
fn nothing_begins_without_all_files() {
    let data = data();
    let data_text = data.path().display().to_string();
    let refused = |more: &[&str]| {
        let args = arguments(&[&["--checkpoint", "c", "--data", &data_text], more].concat());
        let error = args.prepare().unwrap_err();
        assert!(error.is_user(), "{error}");
        error.to_string()
    };
    let error = refused(&["--tasks", "wic,boolq,piqa,lambada_openai", "--shots", "0,1"]);
    for missing in [
        "boolq: boolq.jsonl",
        "boolq (examples): boolq.train.jsonl",
        "piqa: ",
        "piqa (examples): ",
        "lambada_openai (examples): ",
    ] {
        assert!(error.contains(missing), "{missing}: {error}");
    }
    assert!(error.contains("5 files are not there") && !error.contains("wic"), "{error}");
    assert!(
        refused(&["--tasks", "wic", "--shots", "40"]).contains("needs 41 documents"),
        "one more than the pool has"
    );
    assert!(refused(&["--tasks", "lambada"]).contains("no task \"lambada\""));
    assert!(refused(&["--tasks", "wic", "--data", "nowhere"]).contains("no folder"));
    assert!(refused(&["--tasks", "wic", "--data", "wick=x"]).contains("names no set"));
    assert!(refused(&["--tasks", "wic", "--data", "wic=gone.jsonl"]).contains("gone.jsonl"));
    assert!(refused(&["--tasks", "wic", "--json", "/no/such/folder/r.json"]).contains("/no/such/folder"));
    fs::write(data.path().join("boolq.jsonl"), "{\"passage\": 1}\n").unwrap();
    assert!(refused(&["--tasks", "wic,boolq"]).contains("boolq.jsonl:1: field `passage` is 1"));
    for wrong in [&["--shots", "many"][..], &["--limit", "0"], &["--shots", "-1"]] {
        assert!(command(&[&["--checkpoint", "c", "--data", "d"], wrong].concat()).is_err());
    }
    assert!(command(&["--checkpoint", "c"]).is_err(), "data are needed");
    let given = command(&["--checkpoint", "c", "--data", "d"]).unwrap().model.unwrap();
    assert_eq!((given.checkpoint.as_str(), given.backend.as_str()), ("c", "auto"));
    let formats = command(&["--formats"]).unwrap();
    assert!(formats.eval.formats && formats.model.is_none());
    assert!(command(&["--backend", "cpu", "--data", "d"]).is_err(), "a checkpoint is needed");
    // A file given by name stands before the folder's.
    let other = data.path().join("elsewhere.jsonl");
    fs::copy(data.path().join("wic.jsonl"), &other).unwrap();
    let named = format!("wic={}", other.display());
    let args = arguments(&["--checkpoint", "c", "--data", &data_text, "--tasks", "wic", "--data", &named]);
    assert_eq!(args.prepare().unwrap().plan.jobs[0].set.path, other);
    assert!(report::formats().contains("winogrande_xl_validation.jsonl"));
}

#[test]
fn examples_that_fit() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let wic = by_names("wic").unwrap()[0];
    let document = &documents::read(wic, &data.path().join("wic.jsonl")).unwrap().documents[0];
    let longest = document
        .requests("")
        .iter()
        .map(|request| request.context.len() + request.continuation.len())
        .max()
        .unwrap();
    let examples = ["a".repeat(30), "b".repeat(20), "c".repeat(10)];
    let examples: Vec<&str> = examples.iter().map(String::as_str).collect();
    // By whole examples, the first ones first; a token is a byte here.
    for (room, dropped) in [(60, 0), (59, 1), (30, 1), (29, 2), (10, 2), (9, 3), (0, 3)] {
        let scorer = MadeUp { max_tokens: longest + room, ..MadeUp::new() };
        assert_eq!(too_many(&scorer, &examples, document).unwrap(), dropped, "{room}");
    }
    // The report says it, and also what does not fit without examples.
    let data_text = data.path().display().to_string();
    let (json, json_text) = path(&out, "r.json");
    let args = arguments(&[
        "--checkpoint",
        "c",
        "--data",
        &data_text,
        "--tasks",
        "wic",
        "--shots",
        "few",
        "--json",
        &json_text,
    ]);
    let scorer = MadeUp { max_tokens: longest + 400, ..MadeUp::new() };
    let text = run(&args, scorer, out.path()).unwrap();
    assert!(text.contains("12 of 12 documents have fewer examples"), "{text}");
    let report: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!((report.results[0].shortened, report.results[0].cut), (12, 0));
    // The last token is not read: one more than the model's sequence still fits.
    let longest = documents::read(wic, &data.path().join("wic.jsonl")).unwrap().documents.iter().fold(
        0,
        |most, document| {
            let bytes = document
                .requests("")
                .into_iter()
                .map(|request| request.context.len() + request.continuation.len());
            most.max(bytes.max().unwrap())
        },
    );
    for (room, cut) in [(longest - 1, false), (longest - 2, true)] {
        let text =
            run(&args, MadeUp { max_tokens: room, ..MadeUp::new() }, &out.path().join(room.to_string()))
                .unwrap();
        assert_eq!(text.lines().next().unwrap().contains("lost their beginning"), cut, "{text}");
        assert_eq!(text.matches("lost their beginning").count(), 2 * usize::from(cut), "{text}");
    }
}

#[test]
fn answers_that_are_none() {
    struct Wrong(f64, bool);
    impl Scorer for Wrong {
        fn score(
            &mut self,
            requests: &[Request],
            done: &mut dyn FnMut(usize, &Scored),
        ) -> Result<(), common::Gone> {
            let all = if self.1 { requests.len() } else { requests.len() - 1 };
            for (i, request) in requests[..all].iter().enumerate() {
                let answer = made_up(request);
                let log_likelihood = if i == 3 { self.0 } else { answer.log_likelihood };
                done(i, &Scored { log_likelihood, ..answer });
            }
            Ok(())
        }
    }
    impl Counter for Wrong {
        type Error = common::Gone;
        fn count_tokens(&self, text: &str) -> Result<usize, common::Gone> {
            Ok(text.len())
        }
        fn max_tokens(&self) -> usize {
            1000
        }
    }
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let data_text = data.path().display().to_string();
    let args = arguments(&["--checkpoint", "c", "--data", &data_text, "--tasks", "wic"]);
    let run = |scorer: Wrong, folder: &str| run(&args, scorer, &out.path().join(folder));
    let error = run(Wrong(f64::NAN, true), "a").unwrap_err().to_string();
    assert!(error.contains("wic: the log-likelihood of request 3 (document 1) is not a number"), "{error}");
    let error = run(Wrong(-1.0, false), "b").unwrap_err().to_string();
    assert!(error.contains("left 1 of 24 requests"), "{error}");
    // An impossible continuation is an answer.
    assert!(run(Wrong(f64::NEG_INFINITY, true), "c").is_ok());
}
