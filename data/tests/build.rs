//! A recipe end to end: its steps in order, going on after an interruption, the report, and mistakes in it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod common;

use common::prose;
use data::Error;
use data::build::{Recipe, build};
use data::indexed::IndexedDataset;
use data::mt19937::RandomState;
use data::step::Progress;
use std::fs;
use std::path::Path;

const RECIPE: &str = r#"
tokenizer = "bpe:300"

[[set]]
name = "books"
weight = 0.7
inputs = ["books.jsonl"]

[[set]]
name = "crawl"
weight = 0.3
inputs = ["crawl", "more.txt"]

[extract]
method = "justext"
language = "en"
sets = ["crawl"]

[filter]
positives = ["books.jsonl"]
negatives = ["junk.jsonl"]
sets = ["crawl"]

[dedup]

[decontaminate]
against = { riddles = ["task.jsonl"] }

[clean]
"#;

const QUESTION: &str = "Which of the seven purple elephants that juggled frozen lanterns beneath Vesuvius finally whispered a recipe";

fn raw(folder: &Path) {
    let mut random = RandomState::new(3);
    let line = |text: &str| serde_json::json!({"text": text}).to_string() + "\n";
    let books: Vec<String> = (0..60).map(|_| prose(&mut random, 12)).collect();
    fs::write(folder.join("books.jsonl"), books.iter().map(|text| line(text)).collect::<String>()).unwrap();
    let junk = |random: &mut RandomState| format!("buy cheap pills now click here {}", random.next_u32());
    fs::write(
        folder.join("junk.jsonl"),
        (0..60).map(|_| line(&junk(&mut random).repeat(5))).collect::<String>(),
    )
    .unwrap();
    fs::write(folder.join("task.jsonl"), line(QUESTION)).unwrap();
    fs::create_dir(folder.join("crawl")).unwrap();
    let page = |text: &str| format!("<html><ul><li><a href=/>Home</a></ul><p>{text}</p></html>");
    for i in 0..20 {
        fs::write(folder.join(format!("crawl/{i:02}.html")), page(&prose(&mut random, 20))).unwrap();
    }
    fs::write(folder.join("crawl/20.html"), page(&books[5])).unwrap();
    let asked = format!("{}{QUESTION}. {}", prose(&mut random, 20), prose(&mut random, 20));
    fs::write(folder.join("crawl/21.html"), page(&asked)).unwrap();
    fs::write(folder.join("more.txt"), prose(&mut random, 10)).unwrap();
}

#[test]
fn a_recipe_from_raw_text_to_tokens() {
    let folder = tempfile::tempdir().unwrap();
    raw(folder.path());
    let path = folder.path().join("recipe.toml");
    fs::write(&path, RECIPE).unwrap();
    let output = folder.path().join("out");
    let run = |output: &Path| {
        let mut doing = Vec::new();
        let mut watch = |progress: Progress| {
            if doing.last() != Some(&progress.doing) {
                doing.push(progress.doing);
            }
        };
        let built = build(&mut Recipe::read(&path).unwrap(), output, &mut watch).unwrap();
        (built, doing)
    };
    let (built, _) = run(&output);
    let names: Vec<&str> = built.steps.iter().map(|manifest| manifest.step.as_str()).collect();
    assert_eq!(names, ["extract", "filter", "dedup", "decontaminate", "clean"]);
    let tallies: Vec<_> = built.steps.iter().map(data::step::Manifest::tally).collect();
    assert_eq!(tallies[0].documents_in, 23, "extract sees the crawl alone");
    assert_eq!(built.steps[2].sets.len(), 2, "dedup sees both");
    assert_eq!(
        tallies[2].dropped["near duplicate"].documents
            + tallies[2].dropped.get("exact duplicate").map_or(0, |c| c.documents),
        1
    );
    assert_eq!(tallies[3].changed["cut for riddles"].documents, 1);
    for set in &built.sets {
        let pair = IndexedDataset::open(&output.join(&set.file)).unwrap();
        assert_eq!((pair.documents(), pair.tokens()), (set.documents, set.tokens));
    }
    assert_eq!(built.sets[0].documents, 60);
    let report = fs::read_to_string(output.join("report.html")).unwrap();
    for part in ["cut for riddles", "held-out accuracy", "purple elephants", "near duplicate", "70.00%"] {
        assert!(report.contains(part), "{part}");
    }
    let train = fs::read_to_string(output.join("train.toml")).unwrap();
    assert!(
        train.contains("0.7=") && train.contains("00-books") && train.contains("tokenizer.json"),
        "{train}"
    );

    // Again: nothing is made. Interrupted after a step: only what follows.
    let before = fs::metadata(output.join("tokens/00-books.bin")).unwrap().modified().unwrap();
    let (_, doing) = run(&output);
    assert!(doing.is_empty(), "{doing:?}");
    fs::remove_dir_all(output.join("steps/5-clean")).unwrap();
    fs::remove_file(output.join("tokens/01-crawl.idx")).unwrap();
    let (again, doing) = run(&output);
    assert_eq!(doing, ["clean books", "clean crawl", "tokenize 01-crawl"]);
    assert_eq!(again.sets, built.sets);
    assert_eq!(fs::metadata(output.join("tokens/00-books.bin")).unwrap().modified().unwrap(), before);
    let (_, _) = run(&folder.path().join("other"));
    for name in ["tokens/01-crawl.bin", "tokenizer.json", "report.html"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(&output) == read(&folder.path().join("other")), "{name}");
    }
}

#[test]
fn mistakes_in_a_recipe_are_named() {
    let set = "[[set]]\nname = \"a\"\ninputs = [\"a.txt\"]\n";
    let path = Path::new("recipe.toml");
    for (text, part) in [
        ("".to_owned(), "set"),
        (format!("{set}{set}"), "two sets are named \"a\""),
        (format!("{set}weight = -1.0\n"), "the weight -1"),
        (format!("{set}colour = 1\n"), "colour"),
        (format!("{set}[dedup]\njacard = 0.7\n"), "jacard"),
        (format!("{set}[dedup]\njaccard = 1.7\n"), "jaccard is 1.7"),
        (format!("{set}[dedup]\nsets = [\"b\"]\n"), "names \"b\", which is none of a"),
        (format!("{set}[dedup]\nsets = []\n"), "sets is empty"),
        (format!("{set}[extract]\nmethod = \"best\"\n"), "best"),
        (format!("{set}[extract]\nmethod = \"main\"\nlanguage = \"xx\"\n"), "language is xx"),
        ("[[set]]\nname = \"a\"\ninputs = []\n".to_owned(), "has no inputs"),
    ] {
        let Err(error) = Recipe::parse(&text, path) else { panic!("{text} is no recipe") };
        assert!(error.is_user() && error.to_string().contains(part), "{part}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::parse(set, &folder.path().join("recipe.toml")).unwrap();
    let output = folder.path().join("out");
    let error = build(&mut recipe, &output, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::MissingPath { .. }), "{error}");
    assert!(!output.exists(), "nothing half-written");
    fs::write(folder.path().join("a.txt"), "some text").unwrap();
    fs::create_dir(&output).unwrap();
    fs::write(output.join("other.txt"), "").unwrap();
    assert!(matches!(build(&mut recipe, &output, &mut |_| {}), Err(Error::OutputInUse { .. })));
}

#[test]
fn the_recipes_of_the_project_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/data");
    let rust = fs::read_to_string(folder.join("rust-docs.toml")).unwrap();
    assert_eq!(Recipe::parse(&rust, Path::new("rust-docs.toml")).unwrap().sets.len(), 6);
    // The production recipe names data that are not here: its evaluation sets and classifier's sides stand in for them.
    let text = fs::read_to_string(folder.join("mt-nlg.toml")).unwrap();
    let here = tempfile::tempdir().unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut paths: Vec<String> = Vec::new();
    let mut collect = |value: &toml::Value| {
        paths.extend(value.as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()));
    };
    table["decontaminate"]["against"].as_table().unwrap().values().for_each(&mut collect);
    [&table["filter"]["positives"], &table["filter"]["negatives"]].into_iter().for_each(&mut collect);
    for path in paths {
        let path = here.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"text\": \"a document of the task with more than eight words in it\"}\n").unwrap();
    }
    let recipe = Recipe::parse(&text, &here.path().join("mt-nlg.toml")).unwrap();
    assert_eq!(recipe.sets.len(), 15);
    let sum: f64 = recipe.sets.iter().map(|set| set.weight.unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    let steps: Vec<&str> = recipe.stages.iter().map(|stage| stage.step.name()).collect();
    assert_eq!(steps, ["extract", "filter", "dedup", "decontaminate", "clean"]);
}
