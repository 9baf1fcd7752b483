//! Preparation end to end: sources to samples, the cache, two at once, mistakes, the real documentation.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use data::build::{Corpus, Prepared, Request, prepare};
use data::corpus::{Fallback, REMEDY, default_recipe};
use data::dataset::{BlendConfig, BlendSet, BlendedDataset};
use data::indexed::IndexedDataset;
use data::input::{Source, SourceKind};
use data::split::{Part, Split};
use data::tokenizer::TokenizerSpec;
use data::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

fn run(sources: Vec<Source>, tokenizer: TokenizerSpec, cache: &Path) -> Result<Prepared> {
    prepare(&Request { corpus: Corpus::Sources(sources), tokenizer, cache: cache.to_owned() }, &mut |_| {})
}

fn small() -> TokenizerSpec {
    TokenizerSpec::Train { vocab_size: 300 }
}

fn memory(name: &str, weight: Option<f64>, documents: &[&str]) -> Source {
    let documents: Vec<String> = documents.iter().map(|&text| text.to_owned()).collect();
    Source { name: name.to_owned(), weight, kind: SourceKind::Memory(documents.into()) }
}

fn two_sets() -> Vec<Source> {
    vec![
        memory("first", None, &["one one one", "two", "one one one", "shared"]),
        memory("sec/ond", None, &["shared", "three three"]),
    ]
}

#[test]
fn documents_once_tokens_and_weights() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = run(two_sets(), small(), folder.path()).unwrap();
    let [first, second] = &prepared.sets[..] else { panic!("two sets") };
    assert_eq!((first.documents, first.duplicates, first.bytes), (3, 1, Some(11 + 3 + 6)));
    assert_eq!((second.documents, second.duplicates, second.bytes), (1, 1, Some(11)));
    assert_eq!(second.name, "sec/ond");
    let all = (first.tokens + second.tokens) as f64;
    assert_eq!((first.weight, second.weight), (first.tokens as f64 / all, second.tokens as f64 / all));
    let tokenizer = prepared.tokenizer.load().unwrap();
    let pair = IndexedDataset::open(&first.prefix).unwrap();
    let texts: Vec<String> = (0..3)
        .map(|i| {
            let tokens = pair.sequence(i).unwrap();
            assert_eq!(tokens.last(), Some(&tokenizer.eod()));
            tokenizer.decode(&tokens)
        })
        .collect();
    assert_eq!(texts, ["one one one", "two", "shared"]);
    assert_eq!(prepared.bytes_per_token(), Some(31.0 / all));
}

#[test]
fn the_cache_goes_by_contents() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(two_sets(), small(), folder.path()).unwrap();
    assert!(!first.cached);
    let mut stages = Vec::new();
    let corpus = Corpus::Sources(two_sets());
    let request = Request { corpus, tokenizer: small(), cache: folder.path().to_owned() };
    let again = prepare(&request, &mut |progress| stages.push(progress.doing)).unwrap();
    assert_eq!(again, Prepared { cached: true, ..first.clone() });
    assert!(stages.iter().all(|doing| doing == "looking at the data"));

    // Weights are no part of the contents; a word, a name or the tokenizer is.
    let mut weighted = two_sets();
    weighted.iter_mut().for_each(|source| source.weight = Some(2.0));
    let weighted = run(weighted, small(), folder.path()).unwrap();
    assert!(weighted.cached && weighted.sets.iter().all(|set| set.weight == 0.5));
    let mut other = two_sets();
    other[1] = memory("sec/ond", None, &["shared", "three threes"]);
    assert!(!run(other, small(), folder.path()).unwrap().cached);
    assert!(!run(two_sets(), TokenizerSpec::Train { vocab_size: 301 }, folder.path()).unwrap().cached);
    let gpt2 = run(two_sets(), TokenizerSpec::Gpt2, folder.path()).unwrap();
    assert_eq!((gpt2.cached, gpt2.tokenizer), (false, TokenizerSpec::Gpt2));
    assert!(hidden(folder.path()).is_empty(), "nothing half done is left");
}

fn hidden(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

#[test]
fn a_damaged_entry_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(two_sets(), small(), folder.path()).unwrap();
    let idx = data::indexed::idx_path(&first.sets[0].prefix);
    let whole = fs::read(&idx).unwrap();
    fs::write(&idx, &whole[..20]).unwrap();
    let again = run(two_sets(), small(), folder.path()).unwrap();
    assert!(!again.cached);
    assert_eq!(again.notices.len(), 1, "{:?}", again.notices);
    assert_eq!(fs::read(&idx).unwrap(), whole);
    assert!(run(two_sets(), small(), folder.path()).unwrap().cached);
    assert!(hidden(folder.path()).is_empty());
}

#[test]
fn several_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let results: Vec<Prepared> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..6).map(|_| scope.spawn(|| run(two_sets(), small(), folder.path()).unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for result in &results {
        assert_eq!((&result.sets, &result.tokenizer), (&results[0].sets, &results[0].tokenizer));
        assert!(result.notices.is_empty());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn pairs_are_used_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let made = run(two_sets(), TokenizerSpec::Gpt2, folder.path()).unwrap();
    let pair = |name: &str| {
        Source::parse(&made.sets[0].prefix.display().to_string()).map(|s| Source { name: name.into(), ..s })
    };
    let sources =
        vec![memory("text", Some(1.0), &["four"]), Source { weight: Some(3.0), ..pair("pair").unwrap() }];
    let prepared = run(sources.clone(), TokenizerSpec::Gpt2, folder.path()).unwrap();
    assert_eq!(prepared.sets[1].prefix, made.sets[0].prefix);
    assert_eq!(
        (prepared.sets[0].weight, prepared.sets[1].weight, prepared.sets[1].bytes),
        (0.25, 0.75, None)
    );
    assert!(matches!(run(sources, small(), folder.path()), Err(Error::TokensNeedTokenizer { .. })));
    let only = run(vec![pair("pair").unwrap()], TokenizerSpec::Gpt2, folder.path()).unwrap();
    assert_eq!((only.sets[0].weight, only.bytes_per_token()), (1.0, None));
}

#[test]
fn mistakes_end_in_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, " \n\n").unwrap();
    let empty_folder = folder.path().join("folder");
    fs::create_dir(&empty_folder).unwrap();
    fs::write(empty_folder.join("picture.png"), "x").unwrap();
    let source = |path: &Path| Source::parse(&path.display().to_string()).unwrap();
    type Expected = fn(&Error) -> bool;
    let cases: [(Vec<Source>, Expected); 6] = [
        (vec![], |error| matches!(error, Error::NoSources)),
        (vec![source(&empty)], |error| matches!(error, Error::EmptyCorpus { .. })),
        (vec![source(&empty_folder)], |error| matches!(error, Error::EmptyCorpus { .. })),
        (vec![memory("none", None, &[])], |error| matches!(error, Error::EmptyCorpus { .. })),
        (vec![memory("a", None, &["x"]), memory("b", None, &["x"])], |error| {
            matches!(error, Error::EmptyCorpus { .. })
        }),
        (vec![memory("a", None, &["x"]), memory("b", Some(1.0), &["y"])], |error| {
            matches!(error, Error::MixedWeights { .. })
        }),
    ];
    for (sources, expected) in cases {
        let error = run(sources, small(), &cache).unwrap_err();
        assert!(expected(&error) && error.is_user(), "{error}");
    }
    fs::write(folder.path().join("file"), "").unwrap();
    let error = run(two_sets(), small(), &folder.path().join("file/cache")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.is_user(), "{error}");
}

#[test]
fn the_fallback_names_the_remedy() {
    // With a rustc that does not exist the documentation cannot be found; the variable is read in a child of this test.
    if std::env::var("RUSTC").as_deref() != Ok("no-such-rustc") {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_fallback_names_the_remedy"])
            .env("RUSTC", "no-such-rustc")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    assert!(matches!(default_recipe(&Fallback::None), Err(Error::NoDefaultCorpus { .. })));
    let documents = Fallback::Documents(vec!["some text of the repository".to_owned()].into());
    let folder = Fallback::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let cache = tempfile::tempdir().unwrap();
    for fallback in [documents, folder] {
        let corpus = Corpus::Default(fallback);
        let request = Request { corpus, tokenizer: small(), cache: cache.path().to_owned() };
        let prepared = prepare(&request, &mut |_| {}).unwrap();
        assert_eq!(prepared.sets[0].name, "repository");
        assert!(prepared.notices[0].to_string().contains(REMEDY));
    }
}

#[test]
fn the_toolchains_documentation() {
    let cache = tempfile::tempdir().unwrap();
    let corpus = Corpus::Default(Fallback::None);
    let request = Request { corpus, tokenizer: TokenizerSpec::default(), cache: cache.path().to_owned() };
    let prepared = match prepare(&request, &mut |_| {}) {
        Err(Error::NoDefaultCorpus { reason }) => {
            println!("skipped: {reason}; {REMEDY}");
            return;
        }
        prepared => prepared.unwrap(),
    };
    assert_eq!(
        prepared.sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>(),
        ["book", "reference", "nomicon", "rust-by-example", "cargo", "rustc"]
    );
    let tokenizer = prepared.tokenizer.load().unwrap();
    assert_eq!(tokenizer.vocab_size(), 4096);
    for set in &prepared.sets {
        assert!(set.documents > 40 && set.tokens > 40_000, "{set:?}");
        let pair = IndexedDataset::open(&set.prefix).unwrap();
        let mut bytes = 0;
        for i in 0..pair.lengths().len() {
            let tokens = pair.sequence(i).unwrap();
            bytes += tokenizer.byte_len(&tokens);
            let text = tokenizer.decode(&tokens);
            for junk in [
                "Copy to clipboard",
                "Font Awesome",
                "Toggle Table of Contents",
                "Keyboard shortcuts",
                "</code>",
                "no longer distributed",
            ] {
                assert!(!text.contains(junk), "{junk:?} in document {i} of {}: {text}", set.name);
            }
        }
        assert_eq!(Some(bytes), set.bytes, "bytes of the tokens are the bytes of the text");
    }
    let sets =
        prepared.sets.iter().map(|set| BlendSet { prefix: set.prefix.clone(), weight: set.weight }).collect();
    for (part, samples) in [(Part::Train, Some(5000)), (Part::Valid, None)] {
        let config = BlendConfig {
            sets: Vec::clone(&sets),
            split: Split::default(),
            part,
            sequence: 256,
            samples,
            seed: 1234,
            vocab_size: 4096,
        };
        let data = BlendedDataset::open(&config).unwrap();
        assert!(data.len() >= samples.unwrap_or(100), "{part}: {}", data.len());
        assert!((0..data.len()).step_by(97).all(|i| data.sample(i).unwrap().len() == 257));
    }
}

#[test]
fn real_text_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.exists() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["0.5=text/tinyshakespeare.txt", "0.5=text/wikitext2_valid.tokens.txt"];
    let sources = arguments.map(|argument| {
        let (weight, name) = argument.split_once('=').unwrap();
        Source::parse(&format!("{weight}={}", folder.join(name).display())).unwrap()
    });
    let prepared = run(sources.to_vec(), TokenizerSpec::Train { vocab_size: 1024 }, cache.path()).unwrap();
    for set in &prepared.sets {
        assert!((60..=110).contains(&set.documents), "{set:?}");
        assert!(!Split::default().range(Part::Valid, set.documents as usize).is_empty());
    }
    // It has a byte of another encoding far inside.
    let inaugural = Source::parse(&folder.join("text/inaugural.txt").display().to_string()).unwrap();
    let error = run(vec![inaugural], TokenizerSpec::Gpt2, cache.path()).unwrap_err();
    assert!(matches!(&error, Error::BadRecord { bad } if bad.offset == 748_295), "{error}");
    let lambada = folder.join("eval/lambada_openai_test.jsonl");
    let prepared =
        run(vec![Source::parse(&lambada.display().to_string()).unwrap()], TokenizerSpec::Gpt2, cache.path())
            .unwrap();
    assert_eq!(prepared.sets[0].documents + prepared.sets[0].duplicates, 5153);
}
