//! What extract, filter, clean and decontaminate do to documents, end to end.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use common::{apply, prose, set, set_at};
use data::Error;
use data::decontaminate::{Decontaminate, DecontaminateConfig, Task};
use data::extract::{Extract, Method, language::Language};
use data::filter::{Filter, FilterConfig};
use data::input::Files;
use data::mt19937::RandomState;
use std::fs;
use std::path::{Path, PathBuf};

fn task(name: &str, path: &Path) -> Task {
    Task { name: name.to_owned(), files: Files::of_paths([path.to_owned()]).unwrap(), fields: None }
}

/// Twenty words that no other text of these tests has.
const QUESTION: &str = "Which of the seven purple elephants that juggled frozen lanterns beneath Vesuvius finally whispered a recipe for copper marmalade tonight";

#[test]
fn questions_are_cut_out_with_what_is_around_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.jsonl");
    let short = "Do zebras paint violet bridges on windy Thursdays?";
    let brief = "Only seven words are in this line.";
    let lines =
        [QUESTION, short, brief].map(|text| serde_json::json!({"question": text, "label": 1}).to_string());
    fs::write(&path, lines.join("\n")).unwrap();
    let mut random = RandomState::new(8);
    let mut long = || prose(&mut random, 30);
    let (head, tail, other) = (long(), long(), long());
    let shouted = QUESTION.to_uppercase().replace(' ', ",  ");
    let documents = [
        format!("{head}{shouted}. {tail}"),
        format!("{head}{short} {tail}"),
        format!("{head}{brief} {tail}"),
        other.clone(),
        format!("Brief. {QUESTION}. Brief."),
        (0..11).map(|_| format!("{}{short} ", long())).collect::<String>(),
    ];
    // The document that is cut eleven times would make the short one common: it is asked for ten times at most.
    let config = DecontaminateConfig { common: 100, ..DecontaminateConfig::default() };
    let mut step = Decontaminate::new(config, &[task("riddles", &path)]).unwrap();
    let (manifest, kept) = apply(&mut step, &[set("a", &documents)], &folder.path().join("out"));
    let ids: Vec<&str> = kept[0].iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["a#1/1", "a#1/2", "a#2/1", "a#2/2", "a#3", "a#4"]);
    let (first, second) = (&kept[0][0].text, &kept[0][1].text);
    assert!(
        head.starts_with(first.as_str())
            && first.ends_with('.')
            && tail.trim_end().ends_with(second.as_str())
    );
    // 200 characters either side, and then out to a sentence end; the first 13 words are the n-gram, so that the last seven are of the 200 behind it.
    let gone = (head.len() - first.len(), tail.trim_end().len() - second.len());
    assert!((199..400).contains(&gone.0) && (120..400).contains(&gone.1), "{gone:?}");
    assert_eq!(kept[0][4].text, documents[2].trim_end());
    assert_eq!(kept[0][5].text, other.trim_end());
    let tally = &manifest.sets[0].tally;
    assert_eq!(tally.changed["cut for riddles"].documents, 1 + 1 + 1 + 11);
    assert_eq!(tally.dropped["nothing left"].documents, 1);
    assert_eq!(tally.dropped["cut more than 10 times"].documents, 1);
}

#[test]
fn common_speech_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.jsonl");
    fs::write(&path, serde_json::json!({"text": QUESTION}).to_string()).unwrap();
    let document = |i: usize| format!("Number {i}. {QUESTION}. And so on.");
    for (copies, left) in [(9, 0), (10, 10)] {
        let documents: Vec<String> = (0..copies).map(document).collect();
        let mut step = Decontaminate::new(DecontaminateConfig::default(), &[task("riddles", &path)]).unwrap();
        let (_, kept) = apply(&mut step, &[set("a", &documents)], &folder.path().join(copies.to_string()));
        assert_eq!(kept[0].len(), left, "{copies} copies");
    }
}

#[test]
fn tasks_without_documents_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.jsonl");
    fs::write(&path, "{\"answer\": \"x\"}\n").unwrap();
    let config = DecontaminateConfig::default();
    let error = Decontaminate::new(config, &[task("riddles", &path)]).unwrap_err();
    assert!(matches!(error, Error::EmptyCorpus { .. }) && error.to_string().contains("riddles"), "{error}");
    fs::write(&path, "no json\n").unwrap();
    assert!(matches!(Decontaminate::new(config, &[task("riddles", &path)]), Err(Error::BadRecord { .. })));
    assert!(matches!(Decontaminate::new(config, &[]), Err(Error::OutOfRange { .. })));
}

/// The real evaluation sets, where they are: a document of each, planted in other text, is found again and cut for its task.
#[test]
fn real_tasks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eval");
    if !folder.exists() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let tasks = [
        ("lambada", "lambada_openai_test.jsonl", "text"),
        ("race-h", "race_high_test.jsonl", "article"),
        ("boolq", "boolq_validation.jsonl", "passage"),
        ("piqa", "piqa_validation.jsonl", "sol1"),
        ("hellaswag", "hellaswag_validation_1000_orig.jsonl", "ctx"),
        ("winogrande", "winogrande_xl_validation.jsonl", "sentence"),
        ("anli-r2", "anli_r2_test.jsonl", "premise"),
        ("hans", "hans_regenerated_seed1234_3000.jsonl", "premise"),
        ("wic", "wic_validation_superglue500.jsonl", "sentence1"),
    ];
    let all: Vec<Task> = tasks.iter().map(|(name, file, _)| task(name, &folder.join(file))).collect();
    let mut random = RandomState::new(9);
    let mut documents = Vec::new();
    for (_, file, field) in tasks {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let values = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let long = values
            .filter_map(|value| value[field].as_str().map(str::to_owned))
            .find(|text| text.split_whitespace().count() >= 8)
            .unwrap();
        documents.push(format!("{}{long} {}", prose(&mut random, 30), prose(&mut random, 30)));
    }
    documents.push(prose(&mut random, 30));
    let output = tempfile::tempdir().unwrap();
    let mut step = Decontaminate::new(DecontaminateConfig::default(), &all).unwrap();
    let (manifest, kept) = apply(&mut step, &[set("a", &documents)], &output.path().join("out"));
    let tally = &manifest.sets[0].tally;
    for (name, ..) in tasks {
        assert!(tally.changed.contains_key(&format!("cut for {name}")), "{name}: {:?}", tally.changed.keys());
    }
    assert_eq!(kept[0].last().unwrap().text, documents[9].trim_end());
    println!("{:?}", manifest.notes);
}

#[test]
fn extraction_by_method_and_language() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::create_dir(&raw).unwrap();
    let english = "It was the best of times for the people who had come to the city in order to see what there was to be seen, and it \
        was also the worst of times for those of them who did not have the means to stay for as long as they would have liked to.";
    let german = "Es war die beste Zeit f\u{fc}r die Leute, die in die Stadt gekommen waren, um zu sehen, was es zu sehen gab, und es war \
        auch die schlechteste Zeit f\u{fc}r alle, die nicht die Mittel hatten, so lange zu bleiben, wie sie es gern getan h\u{e4}tten.";
    fs::write(
        raw.join("a.html"),
        format!("<html lang=en-GB><nav><a href=/>Home</a></nav><main><h1>T</h1><p>{english}</main>"),
    )
    .unwrap();
    fs::write(raw.join("b.html"), format!("<html lang=de><main><p>{german}</main>")).unwrap();
    fs::write(raw.join("c.html"), "<html><body><a href=x>Moved</a></body>").unwrap();
    let run = |method, language: Option<Language>, name: &str| {
        let (manifest, records) =
            apply(&mut Extract { method, language }, &[set_at(&raw)], &folder.path().join(name));
        let reasons: Vec<String> = manifest.sets[0].tally.dropped.keys().cloned().collect();
        (records[0].iter().map(|record| record.text.clone()).collect::<Vec<_>>(), reasons)
    };
    let both = |title: &str| format!("{title}{english}");
    assert_eq!(
        run(Method::Main, Some(Language::ENGLISH), "main"),
        (vec![both("T\n\n")], vec!["language de".to_owned(), "no main content is marked".to_owned()])
    );
    let page = run(Method::Page, None, "page");
    assert_eq!(page, (vec![both("T\n\n"), german.to_owned(), "Moved".to_owned()], vec![]));
    let (texts, reasons) = run(Method::Justext, Some(Language::ENGLISH), "justext");
    assert_eq!((texts, reasons), (vec![both("T\n\n")], vec!["no running text".to_owned()]));
}

#[test]
fn the_filter_keeps_what_is_like_the_positives() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = RandomState::new(6);
    let junk = |random: &mut RandomState| {
        (0..60)
            .map(|_| format!("buy{} now{}", random.interval(50), random.interval(50)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let write = |name: &str, texts: &[String]| -> PathBuf {
        let path = folder.path().join(name);
        let lines = texts.iter().map(|text| serde_json::json!({"text": text}).to_string());
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        path
    };
    let good: Vec<String> = (0..300).map(|_| prose(&mut random, 10)).collect();
    let bad: Vec<String> = (0..300).map(|_| junk(&mut random)).collect();
    let (positives, negatives) = (write("good.jsonl", &good), write("bad.jsonl", &bad));
    let mut documents: Vec<String> = (0..400).map(|_| prose(&mut random, 10)).collect();
    documents.extend((0..400).map(|_| junk(&mut random)));
    documents.push("brief".to_owned());
    let config = FilterConfig { min_chars: 20, max_chars: Some(100_000), ..FilterConfig::default() };
    let filter = |config| {
        let open = |path: &PathBuf| Files::of_paths([path.clone()]).unwrap();
        Filter::new(config, open(&positives), open(&negatives)).unwrap()
    };
    let sets = [set("a", &documents)];
    let (manifest, kept) = apply(&mut filter(config), &sets, &folder.path().join("out"));
    assert!(manifest.notes[0].starts_with("held-out accuracy 1.0000"), "{:?}", manifest.notes);
    let good = kept[0].iter().filter(|record| !record.text.starts_with("buy")).count();
    let junk = kept[0].len() - good;
    // Scores are near 1 and 0: nearly all stay, and an eighth.
    assert!(good >= 380 && (25..=90).contains(&junk), "{good} and {junk}");
    assert_eq!(manifest.sets[0].tally.dropped["short"].documents, 1);
    assert!(kept[0][0].meta["quality"].as_f64().unwrap() > 0.5);
    let (_, again) = apply(&mut filter(config), &sets, &folder.path().join("again"));
    assert_eq!(again, kept);
    let (_, other) =
        apply(&mut filter(FilterConfig { seed: 1, ..config }), &sets, &folder.path().join("other"));
    assert_ne!(other, kept);
}
