//! `mtnlg plan` as a user runs it, and its predictions beside published runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use trainer::planner::published::{all, fitted, page, rows};
use trainer::rehearse::Place;

fn plan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtnlg")).arg("plan").args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = plan(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is refused, and with which words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = plan(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{arguments:?}: {word} in\n{text}"));
}

#[test]
fn the_published_layout_in_numbers() {
    let plan =
        json(&["--preset", "mt-nlg-530b", "--cluster", "selene", "--nodes", "280", "--stack", "mt-nlg"]);
    let number = |key: &str| plan[key].as_f64().unwrap_or_else(|| panic!("{key} in {plan}"));
    assert_eq!((plan["fits"].as_bool(), plan["devices"].as_u64()), (Some(true), Some(2240)));
    assert!((number("step_seconds") / 60.1 - 1.0).abs() < 1e-3, "{}", number("step_seconds"));
    assert!((number("hardware_tflops_per_gpu") / 126.0 - 1.0).abs() < 0.01);
    assert!((0.27..0.31).contains(&number("mfu")) && (0.14..0.20).contains(&number("bubble_fraction")));
    assert!(number("peak_bytes") < 80e9);
    let time = plan["time"].as_object().unwrap();
    let parts: f64 = time.iter().filter(|(key, _)| *key != "hidden").map(|(_, s)| s.as_f64().unwrap()).sum();
    assert!((parts / number("step_seconds") - 1.0).abs() < 1e-6, "{parts} of {plan}");
    assert_eq!(plan["stages"].as_array().unwrap().len(), 35);
    // 270 B tokens: MT-NLG's own days of full steps.
    assert!((number("days") - 270e9 / (1920.0 * 2048.0) * number("step_seconds") / 86400.0).abs() < 0.1);
}

#[test]
fn every_flag_reaches_the_layout() {
    let plan = json(&[
        "--nodes",
        "35",
        "--tp",
        "8",
        "--pp",
        "35",
        "--global-batch",
        "280",
        "--micro-batch",
        "1",
        "--schedule",
        "interleaved:3",
        "--recompute",
        "selective",
        "--sequence-parallel",
        "--precision",
        "f16",
        "--set",
        "model.dropout=0.0",
        "--tokens",
        "1B",
    ]);
    assert_eq!(plan["layout"], "tensor 8 x pipeline 35 x data 1");
    assert_eq!((&plan["schedule"], &plan["recompute"]), (&"interleaved:3".into(), &"selective".into()));
    assert_eq!(
        (plan["sequence_parallel"].as_bool(), plan["tokens"].as_u64()),
        (Some(true), Some(1_000_000_000))
    );
    let sharded = json(&["--nodes", "70", "--global-batch", "280", "--sharded-optimizer"]);
    let whole = json(&["--nodes", "70", "--global-batch", "280"]);
    assert!(sharded["peak_bytes"].as_u64() < whole["peak_bytes"].as_u64());
}

#[test]
fn what_cannot_be_says_why_and_what_would() {
    refused(&["--nodes", "281"], &["8 x 35 = 280", "do not divide 2248 devices", "2240 or 2520"]);
    refused(&["--tp", "3"], &["parallel.tensor = 3 does not divide model.heads = 128", "--tp 3"]);
    refused(&["--cluster", "moon"], &["no cluster `moon`", "selene, dgx-h100, laptop"]);
    refused(&["--stack", "abacus"], &["no stack `abacus`", "narayanan-2021"]);
    refused(&["--schedule", "interleaved:none"], &["model chunks", "interleaved:2"]);
    refused(&["--nodes", "0"], &["--nodes", "at least 1"]);
    refused(&["--set", "model.depth=3"], &["unknown key `depth`"]);
    refused(&["--nodes", "280", "--schedule", "interleaved:3"], &["a multiple of parallel.pipeline = 35"]);
    let tight = json(&["--nodes", "280", "--recompute", "none"]);
    assert_eq!(tight["fits"].as_bool(), Some(false));
    assert!(tight["why_not"].as_str().unwrap().contains("in the allocation of activations"), "{tight}");
    assert!(tight["what_would"][0].as_str().unwrap().contains("--sequence-parallel"), "{tight}");
}

#[test]
fn a_search_ranks_what_fits() {
    let small = [
        "--preset",
        "laptop",
        "--devices",
        "16",
        "--search",
        "--global-batch",
        "32",
        "--set",
        "model.hidden=2048",
        "--set",
        "model.heads=16",
    ];
    let found = json(&small);
    let ranked = found["ranked"].as_array().unwrap();
    let seconds: Vec<f64> =
        ranked.iter().map(|r| r["prediction"]["step_seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() > 3 && seconds.is_sorted(), "{seconds:?}");
    assert!(ranked.iter().all(|r| r["prediction"]["fits"].as_bool() == Some(true)));
    assert!(ranked.iter().skip(1).all(|r| !r["why"].as_str().unwrap().is_empty()));
    let lost: u64 = found["lost"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(lost + ranked.len() as u64, found["considered"].as_u64().unwrap());
}

#[test]
fn a_page_draws_the_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plan.html");
    let path = file.to_str().unwrap();
    let output = plan(&["--preset", "laptop", "--devices", "8", "--html", path]);
    assert!(output.status.success());
    let html = std::fs::read_to_string(&file).unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("Memory of each stage")
            && html.contains("A step as simulated")
    );
    assert!(!html.contains("src=\"http"));
}

#[test]
fn the_trainer_rehearses() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let train = |run: &Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
        command
            .args(["train", "--backend", "sim", "--json", "--run-dir"])
            .arg(run)
            .args(more)
            .output()
            .unwrap()
    };
    let output = train(&run, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let prediction: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(prediction["layout"], "tensor 2 x pipeline 2 x data 2");
    for file in ["config.toml", "rehearsal.json", "report.html", "timeline.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let timeline = std::fs::read_to_string(run.join("timeline.json")).unwrap();
    assert!(timeline.contains("backward") && timeline.contains("bubble"));
    let again = train(&run, &[]);
    assert_eq!(again.status.code(), Some(2), "the directory is taken");
    let too_much =
        train(&dir.path().join("none"), &["--preset", "gpt3-175b", "--tensor", "1", "--pipeline", "1"]);
    assert_eq!(too_much.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&too_much.stderr).contains("in the allocation of"));
    assert!(!dir.path().join("none").exists());
}

/// The published rows that were not fitted, within the bounds that docs/rehearsal.md speaks of.
#[test]
fn predictions_beside_published_runs() {
    let all = all().unwrap();
    let of = |stack: &'static str| all.iter().filter(move |c| c.row.stack == stack);
    for compared in &all {
        println!(
            "{}: {:+.2}%, memory {:+.1}%",
            compared.row.id,
            100.0 * compared.error(),
            100.0 * compared.memory_error()
        );
        if compared.row.fit {
            assert!(compared.error().abs() < 1e-3, "{} is what its stack was fitted on", compared.row.id);
        }
    }
    let narayanan: Vec<f64> = of("narayanan-2021").filter(|c| !c.row.fit).map(|c| c.error().abs()).collect();
    assert!(narayanan.len() == 4 && narayanan.iter().all(|error| *error < 0.1), "{narayanan:?}");
    assert!(narayanan.iter().sum::<f64>() / 4.0 < 0.06, "{narayanan:?}");
    let seconds = |id: &str| {
        let row = all.iter().find(|c| c.row.id == id).unwrap();
        (row.prediction.step_seconds, row.seconds)
    };
    let (full, selective) = (seconds("kor-530b-full"), seconds("kor-530b-selective"));
    assert!((full.0 / selective.0 / (full.1 / selective.1) - 1.0).abs() < 0.05);
    assert!(of("korthikanti-2022").all(|c| c.error().abs() < 0.05));
    // The aim is 3%. 350 nodes are within 1%; 420 nodes are 3.1% off, for a reason that the model does not have (docs/rehearsal.md).
    assert!(of("mt-nlg").all(|c| c.error().abs() < 0.0315));
    assert!(of("mt-nlg").filter(|c| c.error().abs() < 0.03).count() == 2);
    // 20 bytes a parameter and Korthikanti's activations, where the models are large; smaller ones differ by what docs/rehearsal.md says.
    let large = all.iter().filter(|c| c.config.model.parameters() > 500_000_000_000);
    large.for_each(|c| assert!(c.memory_error().abs() < 0.05, "{}: {}", c.row.id, c.memory_error()));
    // And the page in docs is the one that is made.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rehearsal.md");
    let (written, made) = (std::fs::read_to_string(path).unwrap(), page(&all).unwrap());
    assert!(written.trim_end() == made.trim_end(), "mtnlg plan --published docs/rehearsal.md");
}

#[test]
fn each_stack_has_one_number_and_it_is_fitted() {
    for stack in ["mt-nlg", "narayanan-2021", "korthikanti-2022"] {
        let (row, efficiency) = fitted(stack).unwrap();
        assert!(row.fit && row.stack == stack);
        let written = Place::load("selene", stack).unwrap().stack.efficiency;
        assert!((efficiency / written - 1.0).abs() < 1e-4, "{stack}: {efficiency} {written}");
    }
    assert_eq!(rows().unwrap().iter().filter(|row| row.fit).count(), 3);
    assert!(fitted("mtnlg").is_err());
}
