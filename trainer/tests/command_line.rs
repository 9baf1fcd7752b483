//! `mtnlg train` as a user runs it: what a run leaves, going on after a kill and in another layout, and the answer to each mistake.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a text to train on, a cache, and room for runs.
struct Place {
    dir: TempDir,
}

/// A small model and a run of 12 steps that saves after 4, 8 and 12.
const SMALL: [&str; 11] = [
    "model.layers=4",
    "model.hidden=32",
    "model.heads=4",
    "model.seq_len=32",
    "model.dropout=0.1",
    "data.tokenizer=bpe:384",
    "train.micro_batch=1",
    "train.valid_every=3",
    "train.valid_batches=1",
    "train.checkpoint_every=4",
    "train.steps=12",
];

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let mut text = String::new();
        for i in 0..4000_u32 {
            let word = |salt: u32| {
                ["tensor", "pipeline", "data", "rank", "layer"][((i * 7 + salt * i / 3) % 5) as usize]
            };
            text.push_str(&format!(
                "The {} number {i} follows the {} and the {}.\n\n",
                word(1),
                word(2),
                word(5)
            ));
        }
        std::fs::write(place.path("text.txt"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
        command.current_dir(self.dir.path()).env("MTNLG_CACHE", self.path("cache")).args(arguments);
        command
    }

    /// `mtnlg train` of the small model on the CPU into `run`, with more arguments.
    fn train(&self, run: &str, more: &[&str]) -> Command {
        let mut command =
            self.command(&["train", "--backend", "cpu", "--data", "text.txt", "--run-dir", run]);
        SMALL.iter().for_each(|assignment| {
            command.args(["--set", assignment]);
        });
        command.args(more);
        command
    }

    /// The run's metrics, the one field aside that says how fast it was.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        let parse = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("tokens_per_second").expect("the rate of the step");
            value
        };
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(parse).collect()
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    stderr
}

/// The step lines after `step` are equal to the last digit.
fn same_after(step: usize, ours: &[Value], theirs: &[Value]) {
    assert_eq!(ours.len(), theirs.len());
    assert_eq!(ours[step..], theirs[step..]);
}

#[test]
fn a_run_leaves_what_it_says() {
    let place = Place::new();
    let said = succeed(&mut place.train("run", &[]));
    assert!(said.contains("backend: cpu") && said.contains("validation loss"), "{said}");
    let run = place.path("run");
    let lines = place.metrics("run");
    assert_eq!(lines.len(), 12);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["step"], i + 1);
        assert_eq!(line.get("valid_loss").is_some(), (i + 1).is_multiple_of(3), "{line}");
    }
    let summary: Value = serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["steps"], &summary["tokens"]), (&12.into(), &(12 * 8 * 32).into()));
    assert_eq!(summary["final_valid_loss"], lines[11]["valid_loss"]);
    assert!(summary["bits_per_byte"].as_f64().unwrap() > 0.0);
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("<svg") && !report.contains("src=\"http"));
    // The resolved configuration is a whole one: the same run again.
    succeed(&mut place.command(&["train", "--config", "run/config.toml", "--run-dir", "again"]));
    same_after(0, &place.metrics("again"), &lines);
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let place = Place::new();
    succeed(&mut place.train("whole", &[]));
    // Long enough to be killed on its way; the schedules are those of the whole run.
    let mut child = place.train("killed", &[]).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !place.path("killed/checkpoints/step-4").exists() {
        assert!(Instant::now() < deadline, "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // However far it came, what is after the first checkpoint is thrown away here: most is left to do again.
    for later in ["step-8", "step-12"] {
        let _ = std::fs::remove_dir_all(place.path("killed/checkpoints").join(later));
    }
    let said = succeed(&mut place.command(&["train", "--resume", "killed"]));
    assert!(said.contains("going on after step 4"), "{said}");
    same_after(0, &place.metrics("killed"), &place.metrics("whole"));
}

#[test]
fn a_run_goes_on_in_other_layouts_and_comes_back() {
    let place = Place::new();
    succeed(&mut place.train("whole", &[]));
    succeed(&mut place.train("moved", &[]));
    let keep = |step: u64| {
        for later in [8, 12].into_iter().filter(|later| *later > step) {
            std::fs::remove_dir_all(place.path(&format!("moved/checkpoints/step-{later}"))).unwrap();
        }
    };
    keep(4);
    let serial = ["train", "--resume", "moved", "--tensor", "1", "--pipeline", "1", "--data-parallel", "1"];
    succeed(&mut place.command(&serial));
    keep(8);
    let back = ["train", "--resume", "moved", "--tensor", "2", "--pipeline", "2", "--data-parallel", "2"];
    assert!(succeed(&mut place.command(&back)).contains("going on after step 8"));
    let (whole, moved) = (place.metrics("whole"), place.metrics("moved"));
    same_after(0, &moved[..4], &whole[..4]);
    for (ours, theirs) in moved.iter().zip(&whole).skip(4) {
        for key in ["loss", "grad_norm"] {
            let [a, b] = [ours, theirs].map(|line| line[key].as_f64().unwrap());
            assert!(((a - b) / b).abs() <= 1e-5, "step {}: {key} {a} for {b}", ours["step"]);
        }
    }
}

/// Exit code 2, one message that holds these words, and nothing left behind.
fn refused(output: &Output, words: &[&str], run: &Path) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in: {stderr}");
    }
    assert!(!run.exists(), "{} was left behind", run.display());
}

#[test]
fn mistakes_are_answered_before_anything_is_written() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::write(place.path("torn.idx"), b"MMIDIDX\0\0\x01\0\0").unwrap();
    std::fs::write(place.path("torn.bin"), [0; 64]).unwrap();
    std::fs::write(place.path("bad.jsonl"), "{\"text\": \"good\"}\n{\"body\": 1}\n").unwrap();
    let mistakes: [(&[&str], &[&str]); 9] = [
        (&["--set", "train.warmup=3"], &["unknown key", "warmup", "warmup_steps"]),
        (&["--tensor", "3"], &["parallel.tensor = 3", "model.heads = 4", "1, 2, 4"]),
        (&["--set", "train.seq_len=64"], &["train.seq_len = 64", "model.seq_len = 32"]),
        (&["--pipeline", "5"], &["more ranks than layers", "at most 4"]),
        (&["--set", "train.global_batch=3"], &["train.global_batch = 3"]),
        (&["--set", "data.sources=[\"nowhere\"]"], &["nowhere", "does not exist"]),
        (&["--set", "data.sources=[\"empty\"]"], &["empty", "no text"]),
        (&["--set", "data.sources=[\"torn\"]", "--set", "data.tokenizer=gpt2"], &["torn.idx"]),
        (&["--set", "data.sources=[\"bad.jsonl\"]"], &["bad.jsonl", "text"]),
    ];
    for (arguments, words) in mistakes {
        let mut command = place.command(&["train", "--backend", "cpu", "--run-dir", "refused"]);
        SMALL.iter().for_each(|assignment| {
            command.args(["--set", assignment]);
        });
        if !arguments.concat().contains("data.sources") {
            command.args(["--data", "text.txt"]);
        }
        refused(&command.args(arguments).output().unwrap(), words, &place.path("refused"));
    }
}

#[test]
fn a_run_is_not_overwritten_and_not_continued_as_another() {
    let place = Place::new();
    succeed(&mut place.train("run", &["--steps", "4"]));
    let before = place.metrics("run");
    let gone = place.path("gone");
    refused(
        &place.train("run", &[]).output().unwrap(),
        &["a run in this directory already", "--resume"],
        &gone,
    );
    let resume = |more: &[&str]| {
        let mut command = place.command(&["train", "--resume", "run"]);
        command.args(more).output().unwrap()
    };
    refused(
        &resume(&["--set", "model.hidden=64"]),
        &["another model", "hidden is 32 there and 64 here"],
        &gone,
    );
    refused(&resume(&["--set", "train.seed=5"]), &["another train.seed"], &gone);
    refused(&resume(&["--set", "train.global_batch=4"]), &["another train.global_batch"], &gone);
    assert_eq!(place.metrics("run"), before);
    // A damaged checkpoint is named and refused.
    let shard = place.path("run/checkpoints/step-4/shard-00000.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    refused(&resume(&[]), &["no good checkpoint", "step-4", "shard-00000"], &gone);
}
