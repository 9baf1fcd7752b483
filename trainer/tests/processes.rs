//! Ranks as processes: the same bits as threads, and an end for all when one ends.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn mtnlg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtnlg")).args(args).output().unwrap()
}

/// Threads, processes, and processes that go on where threads were interrupted, and the other way round.
#[test]
fn threads_and_processes_have_one_digest() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("parity.json");
    let layouts = "1x1x1,2x2x2,2x2x2+processes,4x1x2+sp+zero1+processes,1x2x2+zb-h1+processes<2x1x1,1x2x2<2x1x1+processes";
    let output = mtnlg(&[
        "parity",
        "--backend",
        "cpu",
        "--layouts",
        layouts,
        "--steps",
        "4",
        "--json",
        json.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let layouts = report["layouts"].as_array().unwrap();
    assert_eq!(report["equal"], true, "{report}");
    let launched: Vec<_> = layouts.iter().map(|layout| layout["launch"].as_str().unwrap()).collect();
    assert_eq!(launched, ["threads", "threads", "processes", "processes", "processes", "threads"]);
    assert_eq!(layouts[0]["digest"].as_str().unwrap().len(), 64);
}

/// Ranks that mpirun starts, over MPI.
#[cfg(feature = "mpi")]
#[test]
fn mpi_processes_have_the_digest_of_threads() {
    let layouts = "1x1x1,2x2x2+mpi,1x4x2+zero1+mpi,4x1x2+sp+mpi<2x2x1";
    let output = mtnlg(&["parity", "--backend", "cpu", "--layouts", layouts, "--steps", "4"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("equal: 4 variants, 4 steps, one digest"), "{said}");
}

/// One process of a run of `world` that meet at `port`.
fn rank(rank: usize, world: usize, port: u16, dir: &Path, more: &[&str]) -> Child {
    let text = dir.join("text.txt");
    if rank == 0 {
        let words = (0..4000).map(|i| format!("word {} of {}\n", i * 7 % 113, i % 17));
        std::fs::write(&text, words.collect::<String>()).unwrap();
    }
    let small = "model.layers=2 model.hidden=32 model.heads=4 model.seq_len=32 data.tokenizer=bpe:300 train.micro_batch=1 train.valid_batches=1";
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
    command.args(["train", "--backend", "cpu"]);
    small.split_whitespace().for_each(|set| {
        command.args(["--set", set]);
    });
    command.arg("--data").arg(&text).arg("--run-dir").arg(dir.join("run")).args(more);
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("MTNLG_CACHE", dir.join("cache")).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Gradients reduced in buckets while the backward goes on, in processes as in threads.
#[test]
fn overlapped_buckets_have_the_threads_losses() {
    let options =
        ["--data-parallel", "2", "--pipeline", "1", "--tensor", "2", "--set", "parallel.bucket=1000"];
    let losses = |processes: bool| {
        let dir = tempfile::tempdir().unwrap();
        let options = [&options[..], &["--steps", "6"]].concat();
        let port = free_port();
        let ranks: Vec<Child> = match processes {
            true => (0..4).map(|i| rank(i, 4, port, dir.path(), &options)).collect(),
            false => vec![rank(0, 1, port, dir.path(), &options)],
        };
        for child in ranks {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let metrics = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter_map(|line| line["loss"].as_f64()).collect::<Vec<_>>()
    };
    let (threads, processes) = (losses(false), losses(true));
    assert_eq!(threads, processes);
    assert_eq!(threads.len(), 6);
}

/// A rank that is killed in the middle: the others stop at once, name it, and leave their ledgers.
#[test]
fn a_killed_process_stops_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut ranks: Vec<Child> = (0..4)
        .map(|i| rank(i, 4, port, dir.path(), &["--data-parallel", "1", "--steps", "100000"]))
        .collect();
    let metrics = dir.path().join("run/metrics.jsonl");
    let begin = Instant::now();
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
        assert!(begin.elapsed() < Duration::from_secs(120), "no step is done");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut killed = ranks.remove(2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let begin = Instant::now();
    for child in ranks {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("rank 2"), "{said}");
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "they waited {:?}", begin.elapsed());
    for rank in [0, 1, 3] {
        let ledger = std::fs::read(dir.path().join(format!("run/ledger/rank-{rank}.json"))).unwrap();
        let ledger: serde_json::Value = serde_json::from_slice(&ledger).unwrap();
        let last = ledger["calls"].as_array().unwrap().last().unwrap();
        assert!(
            last["seconds"].is_null() && ledger["error"].as_str().unwrap().contains("rank 2"),
            "{ledger}"
        );
    }
}

/// A scheduler that takes one machine away: every process ends well, with a checkpoint of the step, and the run goes on from it.
#[cfg(unix)]
#[test]
fn a_terminated_process_stops_all_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let start = |steps: &str, more: &[&str]| -> Vec<Child> {
        let port = free_port();
        let arguments =
            [&["--data-parallel", "2", "--tensor", "1", "--pipeline", "1", "--steps", steps], more].concat();
        (0..2).map(|i| rank(i, 2, port, dir.path(), &arguments)).collect()
    };
    let ranks = start("100000", &["--set", "train.checkpoint_every=0", "--set", "train.valid_every=0"]);
    let metrics = dir.path().join("run/metrics.jsonl");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let begin = Instant::now();
    while steps() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(120), "no step is done");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Not the first rank's; and twice, as schedulers do.
    for _ in 0..2 {
        let sent = Command::new("kill").args(["-TERM", &ranks[1].id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    for child in ranks {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let done = steps();
    let checkpoints: Vec<_> =
        std::fs::read_dir(dir.path().join("run/checkpoints")).unwrap().flatten().collect();
    assert_eq!(checkpoints.len(), 1);
    let name = checkpoints[0].file_name().into_string().unwrap();
    assert!(
        name.trim_start_matches("step-").trim_start_matches('0') == done.to_string(),
        "{name} after {done}"
    );

    let resume = dir.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
    command.args(["train", "--resume", resume.to_str().unwrap(), "--steps", &(done + 2).to_string()]);
    command.args(["--set", "train.valid_every=0"]).env("MTNLG_CACHE", dir.path().join("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(steps(), done + 2);
}

/// As many processes as ranks, or one message.
#[test]
fn a_wrong_number_of_processes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let ranks: Vec<Child> = (0..2).map(|i| rank(i, 2, port, dir.path(), &[])).collect();
    for child in ranks {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("2 processes were started for a layout of 8 ranks"), "{said}");
    }
    assert!(!dir.path().join("run").exists());
}
