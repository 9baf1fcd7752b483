//! The suite as a third party runs it: on a backend that conforms, and on one that does not in every way.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn minimal(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_minimal-backend")).args(args).output().unwrap()
}

fn misbehaving(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_misbehaving")).args(args).output().unwrap()
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_minimal_backend_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let [json, markdown, html] = ["r.json", "r.md", "r.html"].map(|name| dir.path().join(name));
    let files = ["--json", text(&json), "--markdown", text(&markdown), "--html", text(&html)];
    let output = minimal(&[&["run", "--tier", "smoke"], &files[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&json);
    let total = report["total"].as_u64().unwrap();
    assert!(total > 200, "{total}");
    assert_eq!(
        (&report["version"], &report["pass"], &report["tier"]),
        (&1.into(), &total.into(), &"smoke".into())
    );
    assert!(said(&output).starts_with(&format!("{total} of {total} cases pass: minimal on host memory")));
    let cases = report["cases"].as_array().unwrap();
    assert!(cases.iter().all(|case| case["ratio"].as_f64().unwrap() <= 1.0));
    assert!(cases.iter().any(|case| case["spread"].as_f64().is_some_and(|spread| spread > 0.0)));
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("matmul:") && !page.contains("http"), "it needs nothing else");
    assert!(std::fs::read_to_string(markdown).unwrap().contains("| layernorm |"));
}

/// Each way to end is a status of its own, of the case that it happened in; the others of the group run all the same.
#[test]
fn every_end_of_a_case_is_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    // The whole group each time, to see that it goes on.
    for (group, filter, bad, count, words) in [
        ("gelu:n", "gelu:n=33,", "crash", 3, "the last words of a driver"),
        ("dropout:", "dropout:n=33,", "timeout", 3, "no answer in 0.5 s"),
        ("adamw:", "adamw:n=33,", "crash", 1, "it was lost"),
        ("bias_add:t", "bias_add:t=33", "expected_fail", 3, "its bias is scaled"),
        ("fill:", "fill:value=0,n=33", "unexpected_pass", 3, "a list that is out of date"),
    ] {
        let output = misbehaving(&["run", "--filter", group, "--timeout", "0.5", "--json", text(&json)]);
        let good = bad == "expected_fail";
        assert_eq!(output.status.code(), Some(if good { 0 } else { 1 }), "{filter}: {}", said(&output));
        let report = report(&json);
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for case in report["cases"].as_array().unwrap() {
            let status = case["status"].as_str().unwrap();
            *ends.entry(status).or_default() += 1;
            if case["id"].as_str().unwrap().contains(filter) {
                assert_eq!(status, bad, "{case}");
                assert!(case["reason"].as_str().unwrap().contains(words), "{case}");
            }
        }
        assert!(ends[bad] >= count, "{filter}: {ends:?}");
        assert_eq!(report[bad].as_u64(), Some(ends[bad] as u64));
        assert_eq!(report["total"].as_u64(), Some(ends.values().sum::<usize>() as u64));
        if bad == "crash" || bad == "timeout" {
            assert!(ends["pass"] > count, "{filter}: {ends:?}");
        }
    }
}

/// The tier's step must not go round with an option's: of each a smoke run sees more than one.
#[test]
fn smoke_sees_every_option() {
    for (filter, key, least) in
        [("cast:", "from=", 3), ("cast:", "dt=", 3), ("reduce:", "inputs=", 7), ("reduce:", "dt=", 3)]
    {
        let listed = said(&minimal(&["list", "--tier", "smoke", "--filter", filter]));
        let value =
            |id: &str| id.split_once(key).map(|(_, rest)| rest.split(',').next().unwrap_or(rest).to_owned());
        let values: std::collections::BTreeSet<_> = listed.lines().filter_map(value).collect();
        assert!(values.len() >= least, "{filter} {key} {values:?}");
    }
}

/// A filter may begin with a dash, and the children see it so.
#[test]
fn a_filter_of_a_negative_number() {
    let output = minimal(&["run", "--tier", "smoke", "--filter=-1.25"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn reports_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let [before, after] = ["before.json", "after.json"].map(|name| dir.path().join(name));
    for path in [&before, &after] {
        assert!(minimal(&["run", "--filter", "cast:n=31", "--json", text(path)]).status.success());
    }
    let same = minimal(&["diff", text(&before), text(&after)]);
    assert!(same.status.success(), "{}", said(&same));
    let mut worse = report(&after);
    worse["cases"][0]["status"] = "fail".into();
    std::fs::write(&after, worse.to_string()).unwrap();
    let output = minimal(&["diff", text(&before), text(&after)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("pass -> fail"), "{}", said(&output));
    worse["cases"][0]["status"] = "unsupported".into();
    std::fs::write(&after, worse.to_string()).unwrap();
    let output = minimal(&["diff", text(&before), text(&after)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    worse["cases"].as_array_mut().unwrap().remove(0);
    std::fs::write(&after, worse.to_string()).unwrap();
    let output = minimal(&["diff", text(&before), text(&after)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    worse["version"] = 2.into();
    std::fs::write(&after, worse.to_string()).unwrap();
    let output = minimal(&["diff", text(&before), text(&after)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("a report of version 2"), "{}", said(&output));
}

#[test]
fn mistakes_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("expected");
    std::fs::write(&list, "matmul: without a reason\n").unwrap();
    let stale = dir.path().join("stale");
    std::fs::write(&stale, "matmull # a case that is no more\n").unwrap();
    let nowhere = dir.path().join("nowhere").join("report.json");
    for (args, words) in [
        (&["run", "--backend", "cuda"][..], "there is no backend cuda; give one of: minimal"),
        (&["run", "--filter", "matmull"], "no case has an id with \"matmull\""),
        (&["run", "--timeout", "0"], "--timeout 0 is no time"),
        (&["run", "--expected", text(&list)], "expected:1: \"matmul: without a reason\" is no expectation"),
        (&["run", "--expected", text(&stale)], "stale:1: no case has an id with \"matmull\""),
        (&["run", "--json", text(&nowhere)], "give a file in a folder that exists"),
        (&["diff", "a", "b"], "cannot read a"),
    ] {
        let output = minimal(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{args:?}: {}", said(&output));
    }
    let listed = minimal(&["list", "--filter", "matmul:*dt=bf16"]);
    assert!(said(&listed).lines().count() > 40, "{}", said(&listed));
    let support = minimal(&["support"]);
    assert!(
        said(&support).contains("| matmul_bias_gelu | composed | f32, bf16, f16 |"),
        "{}",
        said(&support)
    );
}
