//! Steps: the same bits on any number of threads, going on after an interruption, quarantine, folders in use.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use common::{apply, prose, records, set, set_at};
use data::Error;
use data::clean::{Clean, CleanConfig};
use data::mt19937::RandomState;
use data::record::Record;
use data::step::{Outcome, Place, Step, read_manifest, run, sets_of, verify};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

fn clean() -> Clean {
    Clean { config: CleanConfig::default() }
}

fn documents(n: usize) -> Vec<String> {
    let mut random = RandomState::new(1);
    (0..n).map(|i| format!("{i} {}", prose(&mut random, 20))).collect()
}

/// Every file below a folder, by name, with its bytes.
fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let sets = [set("a", &documents(3000)), set("b", &documents(50))];
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for threads in [1, 2, 7] {
        let output = folder.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&mut clean(), &sets, &output, None, &mut |_| {}).unwrap());
        all.push(bytes_of(&output));
    }
    assert!(all[0].keys().any(|name| name == "00-a/part-00000.jsonl.zst"));
    assert!(all.iter().all(|files| *files == all[0]));
}

/// Keeps everything and counts; panics at a document.
struct Counting<'a>(&'a AtomicUsize, Option<&'a str>);

impl Step for Counting<'_> {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn options(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn apply(&self, _: Place, record: Record) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        assert!(self.1.is_none_or(|stop| !record.text.starts_with(stop)), "stopped here");
        Outcome::keep(record)
    }
}

#[test]
fn an_interrupted_step_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::create_dir(&raw).unwrap();
    // Large files are parts of their own; their bytes are what counts, so they are sparse text: few records, long lines.
    for name in ["a", "b", "c"] {
        let mut file = fs::File::create(raw.join(format!("{name}.jsonl"))).unwrap();
        for i in 0..5 {
            let text = format!("{name}{i} {}", "x ".repeat(7 << 20));
            writeln!(file, "{}", serde_json::json!({"id": format!("{name}{i}"), "text": text})).unwrap();
        }
    }
    let sets = [set_at(&raw)];
    assert_eq!(sets[0].parts().len(), 3);
    let output = folder.path().join("out");
    let count = AtomicUsize::new(0);
    let stopped = std::panic::catch_unwind(|| {
        let mut step = Counting(&count, Some("c2"));
        run(&mut step, &sets, &output, None, &mut |_| {})
    });
    assert!(stopped.is_err());
    assert!(!read_manifest(&output).unwrap().complete);
    assert!(matches!(sets_of(&output.display().to_string()), Err(Error::Manifest { .. })));
    assert!(matches!(verify(&output), Err(Error::Manifest { .. })));
    count.store(0, Ordering::Relaxed);
    let manifest = run(&mut Counting(&count, None), &sets, &output, None, &mut |_| {}).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 5, "two of three parts were there");
    assert_eq!(manifest.tally().documents_out, 15);
    let whole = folder.path().join("whole");
    run(&mut Counting(&count, None), &sets, &whole, None, &mut |_| {}).unwrap();
    assert_eq!(bytes_of(&output), bytes_of(&whole));
    assert_eq!(verify(&output).unwrap(), 3);

    // Another input makes its part again, and no other.
    let line = serde_json::json!({"text": "new"}).to_string() + "\n";
    fs::OpenOptions::new()
        .append(true)
        .open(raw.join("b.jsonl"))
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    count.store(0, Ordering::Relaxed);
    let manifest = run(&mut Counting(&count, None), &[set_at(&raw)], &output, None, &mut |_| {}).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), manifest.tally().documents_out), (6, 16));
    let ids: Vec<String> = records(&manifest.sets(&output)[0]).into_iter().map(|record| record.id).collect();
    assert_eq!(ids[9..12], ["b4", "b.jsonl:6", "c0"]);

    // A file altered afterwards is named.
    let part = output.join("00-raw/part-00001.jsonl.zst");
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    let error = verify(&output).unwrap_err();
    assert!(error.to_string().contains("part-00001"), "{error}");
}

#[test]
fn bad_records_are_quarantined_and_stop_only_at_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw.jsonl");
    let good = "{\"text\":\"The people of this town have always known that it would.\"}\n";
    fs::write(&raw, [good, "{\"text\": 3}\n", good, "\n", "no json\n", good].concat()).unwrap();
    let sets = [set_at(&raw)];
    let output = folder.path().join("out");
    let (manifest, records) = apply(&mut clean(), &sets, &output);
    let tally = &manifest.sets[0].tally;
    assert_eq!((tally.bad, tally.documents_in, records[0].len()), (2, 3, 3));
    let quarantine = fs::read_to_string(output.join("00-raw/part-00000.bad.jsonl")).unwrap();
    let bad: Vec<serde_json::Value> =
        quarantine.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bad[0]["offset"], good.len());
    assert!(bad[0]["reason"].as_str().unwrap().contains("line 2"), "{}", bad[0]);
    assert_eq!(bad[1]["sample"], "no json\n");
    let limited =
        |limit, name: &str| run(&mut clean(), &sets, &folder.path().join(name), Some(limit), &mut |_| {});
    assert!(limited(2, "two").is_ok());
    assert!(matches!(limited(1, "one"), Err(Error::TooManyBad { limit: 1, .. })));
    assert!(matches!(limited(0, "none"), Err(Error::BadRecord { .. })));
}

#[test]
fn pages_are_for_extract_alone() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("page.html");
    fs::write(&raw, "<p>The people of this town have always known that it would.</p>").unwrap();
    let (manifest, records) = apply(&mut clean(), &[set_at(&raw)], &folder.path().join("out"));
    assert_eq!((manifest.tally().bad, records[0].len()), (1, 0));
    let quarantine = fs::read_to_string(folder.path().join("out/00-page/part-00000.bad.jsonl")).unwrap();
    assert!(quarantine.contains("`extract`"), "{quarantine}");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::create_dir(&raw).unwrap();
    fs::write(raw.join("a.txt"), "text of a").unwrap();
    let refused = |output: &Path| {
        let error = run(&mut clean(), &[set_at(&raw)], output, None, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::OutputInUse { .. }) && error.is_user(), "{error}");
    };
    refused(&raw);
    refused(folder.path());
    refused(&raw.join("a.txt"));
    assert_eq!(fs::read_dir(&raw).unwrap().count(), 1);
}
