//! Scoring, generation and the server with a random GPT-2 of transformers (`fixtures/gpt2.py`), against what lm-evaluation-harness and transformers say of it
//! (`fixtures/scores.py`).

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod client;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use client::Server;
use conformance::or_skip;
use serde::Deserialize;
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2")
}

#[derive(Deserialize)]
struct Expected {
    scores: Vec<(String, String, f64, bool)>,
    greedy: Vec<(String, Vec<u32>)>,
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(fixture().join("scores.json")).unwrap()).unwrap()
}

fn mtnlg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtnlg")).args(args).output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = mtnlg(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One message, exit code 2, no panic.
fn refused(args: &[&str]) -> String {
    let output = mtnlg(args);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {words}");
    assert!(!words.contains("panicked") && output.stdout.is_empty(), "{words}");
    words
}

/// The imported model, and its requests in a file.
struct Imported {
    dir: tempfile::TempDir,
    run: String,
}

impl Imported {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_str().unwrap().to_owned();
        done(&["checkpoint", "import", fixture().to_str().unwrap(), "--output", &run]);
        Self { dir, run }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn requests(&self) -> String {
        let line = |(context, continuation, ..): &(String, String, f64, bool)| {
            json!({ "context": context, "continuation": continuation }).to_string() + "\n"
        };
        self.file("requests.jsonl", &expected().scores.iter().map(line).collect::<String>())
    }

    fn score(&self, more: &[&str]) -> Vec<Value> {
        let requests = self.requests();
        let args = [&["score", "--checkpoint", &self.run, "--requests", &requests], more].concat();
        done(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn generate(&self, more: &[&str]) -> Vec<Value> {
        let args = [&["generate", "--checkpoint", &self.run, "--json", "--max-tokens", "12"], more].concat();
        done(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn check_scores(scores: &[Value], what: &str) {
    let expected = expected().scores;
    assert_eq!(scores.len(), expected.len());
    for (score, (context, continuation, likelihood, greedy)) in scores.iter().zip(expected) {
        let ours = score["log_likelihood"].as_f64().unwrap();
        let words =
            format!("{what}: {context:?} {continuation:?}: {score} instead of {likelihood}, {greedy}");
        assert!((ours - likelihood).abs() <= 1e-5 * likelihood.abs(), "{words}");
        assert_eq!(score["is_greedy"], json!(greedy), "{words}");
    }
}

#[test]
fn likelihoods_are_the_harnesss_in_every_layout() {
    let model = Imported::new();
    let greedy = expected().scores.iter().filter(|score| score.3).count();
    assert!(greedy >= 3 && greedy < expected().scores.len(), "both answers occur");
    for layout in [["1", "1"], ["2", "1"], ["1", "2"], ["2", "3"]] {
        let args = ["--backend", "cpu", "--tensor", layout[0], "--pipeline", layout[1]];
        check_scores(&model.score(&args), &format!("{layout:?}"));
    }
    // Steps so small that groups of requests are cut in pieces.
    let small = model.score(&["--backend", "cpu", "--batch-tokens", "7"]);
    check_scores(&small, "7 tokens a step");
}

/// The model has 24 positions: of a continuation of more tokens the last 24 are scored, behind the one before them.
#[test]
fn a_continuation_longer_than_the_model_loses_its_beginning() {
    let model = Imported::new();
    let tokenizer = data::tokenizer::Tokenizer::from_file(&fixture().join("tokenizer.json")).unwrap();
    let words = ["the", "model", "on", "which", "a", "text"];
    let long: String = (0..40).map(|i| format!(" {}", words[i * i % 5])).collect();
    let tokens = tokenizer.encode(&format!("the{long}")).unwrap();
    let kept = &tokens[tokens.len() - 25..];
    let (first, rest) = (tokenizer.decode(&kept[..1]), tokenizer.decode(&kept[1..]));
    assert_eq!(tokenizer.encode(&first).unwrap(), kept[..1], "{first:?} is one token");
    assert_eq!(
        tokenizer.encode(&format!("{first}{rest}")).unwrap(),
        kept,
        "the text has the same tokens by itself"
    );
    let line = |context: &str, continuation: &str| {
        json!({ "context": context, "continuation": continuation }).to_string() + "\n"
    };
    let requests = model.file("long.jsonl", &(line("the", &long) + &line(&first, &rest)));
    let output = mtnlg(&["score", "--checkpoint", &model.run, "--backend", "cpu", "--requests", &requests]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1 of 2 requests are longer"), "{said}");
    let scores: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((scores[0]["tokens"].as_u64(), scores[1]["tokens"].as_u64()), (Some(24), Some(24)));
    let [cut, whole] = [0, 1].map(|i: usize| scores[i]["log_likelihood"].as_f64().unwrap());
    assert!((cut - whole).abs() <= 1e-6 * whole.abs() && whole < -24.0, "{cut} {whole}");
}

#[test]
fn likelihoods_are_the_harnesss_on_wgpu() {
    let any = backend_wgpu::Choice::Any { name: None };
    if or_skip("wgpu", backend_wgpu::WgpuBackend::cluster(1, std::time::Duration::from_secs(60), &any))
        .is_none()
    {
        return;
    }
    let model = Imported::new();
    for layout in [["1", "1"], ["2", "2"]] {
        let args = ["--backend", "wgpu", "--tensor", layout[0], "--pipeline", layout[1]];
        check_scores(&model.score(&args), &format!("wgpu {layout:?}"));
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    let model = Imported::new();
    let expected = expected().greedy;
    let tokenizer = data::tokenizer::Tokenizer::from_file(&fixture().join("tokenizer.json")).unwrap();
    let prompts: Vec<&str> = expected.iter().flat_map(|(prompt, _)| ["--prompt", prompt.as_str()]).collect();
    for pipeline in ["1", "3"] {
        let args =
            [&["--backend", "cpu", "--temperature", "0", "--pipeline", pipeline], &prompts[..]].concat();
        for (line, (prompt, tokens)) in model.generate(&args).iter().zip(&expected) {
            // The end of a text ends it here.
            let tokens: Vec<u32> =
                tokens.iter().copied().take_while(|&token| token != tokenizer.eod()).collect();
            assert_eq!(line["text"], json!(tokenizer.decode(&tokens)), "{prompt}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_text_in_every_layout() {
    let model = Imported::new();
    let prompts = ["--prompt", "the model", "--prompt", "on which", "--prompt", "a"];
    let sampling =
        ["--temperature", "1.5", "--top-p", "0.9", "--repetition-penalty", "1.2", "--backend", "cpu"];
    let invariant = ["--numerics", "invariant", "--chunks", "4"];
    let of = |seed: &str, tp: &str, pp: &str| {
        let layout = ["--seed", seed, "--tensor", tp, "--pipeline", pp];
        model.generate(&[&prompts[..], &sampling, &invariant, &layout].concat())
    };
    let first = of("1", "1", "1");
    for [tp, pp] in [["1", "1"], ["2", "1"], ["4", "1"], ["1", "3"], ["2", "3"]] {
        assert_eq!(of("1", tp, pp), first, "tp {tp}, pp {pp}");
    }
    assert_ne!(of("2", "1", "1"), first);
}

#[test]
fn mistakes_are_told_apart() {
    let model = Imported::new();
    let run = model.run.as_str();
    let requests = model.requests();
    let score = ["score", "--checkpoint", run, "--backend", "cpu", "--requests"];
    let bad = model.file("bad.jsonl", "{\"context\": \"a\", \"continuation\": \" b\"}\n{\"context\": 3}\n");
    assert!(refused(&[&score[..], &[&bad]].concat()).contains("bad.jsonl:2"));
    let empty = model.file("empty.jsonl", "{\"context\": \"the\", \"continuation\": \"\"}\n");
    assert!(refused(&[&score[..], &[&empty]].concat()).contains("empty.jsonl:1"));
    let nothing = model.file("nothing.jsonl", "\n");
    assert!(refused(&[&score[..], &[&nothing]].concat()).contains("no request"));
    assert!(
        refused(&["score", "--checkpoint", "nowhere", "--requests", &requests]).contains("no such directory")
    );
    assert!(refused(&[&score[..], &[&requests, "--tensor", "3"]].concat()).contains("heads"));
    assert!(refused(&[&score[..], &[&requests, "--pipeline", "4"]].concat()).contains("stages"));
    let generate = ["generate", "--checkpoint", run, "--backend", "cpu", "--prompt"];
    assert!(refused(&[&generate[..], &["a", "--temperature=-1"]].concat()).contains("--temperature -1"));
    let long = "the model ".repeat(40);
    assert!(refused(&[&generate[..], &[&long]].concat()).contains("a model of 24"));
}

#[test]
fn the_server_answers_as_openai_does() {
    let model = Imported::new();
    let server = Server::start(&model.run, &["--name", "tiny"]);
    assert_eq!(server.get("/health"), (200, "ok\n".to_owned()));
    assert!(server.get("/v1/models").1.contains("\"id\":\"tiny\""));

    // What the harness's client asks: the prompt's own tokens with their likelihoods.
    let tokenizer = data::tokenizer::Tokenizer::from_file(&fixture().join("tokenizer.json")).unwrap();
    for (context, continuation, likelihood, greedy) in expected().scores {
        let context_tokens = tokenizer.encode(&context).unwrap();
        let tokens = tokenizer.encode(&format!("{context}{continuation}")).unwrap();
        if context_tokens.is_empty() || context.ends_with(char::is_whitespace) || tokens.len() > 23 {
            continue;
        }
        let asked = json!({
            "model": "tiny", "prompt": [tokens], "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0, "seed": 1234
        });
        let answer = server.complete(&asked);
        let told = &answer["choices"][0]["logprobs"];
        let values = told["token_logprobs"].as_array().unwrap();
        assert_eq!(values.len(), tokens.len() + 1);
        assert!(values[0].is_null() && told["top_logprobs"][0].is_null());
        let range = context_tokens.len()..tokens.len();
        let sum: f64 = values[range.clone()].iter().map(|value| value.as_f64().unwrap()).sum();
        assert!((sum - likelihood).abs() <= 1e-5 * likelihood.abs(), "{context:?} {continuation:?}: {sum}");
        let top = |i: usize| {
            let top = told["top_logprobs"][i].as_object().unwrap().values();
            top.map(|value| value.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max)
        };
        assert_eq!(
            range.into_iter().all(|i| values[i].as_f64() == Some(top(i))),
            greedy,
            "{context:?} {continuation:?}"
        );
    }

    // Whole and in pieces, the same; and again the same.
    let asked =
        json!({ "prompt": "the model", "max_tokens": 9, "seed": 7, "temperature": 1.0, "top_p": 0.95 });
    let whole = server.complete(&asked);
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert_eq!(whole["usage"]["prompt_tokens"], json!(tokenizer.encode("the model").unwrap().len()));
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let (pieces, end) = server.stream(&streamed);
    assert_eq!((pieces.concat().as_str(), end.as_str()), (text, "[DONE]"));
    assert_eq!(server.complete(&asked)["choices"], whole["choices"]);
    let several = server.complete(&json!({ "prompt": ["the model", "a"], "n": 2, "max_tokens": 3 }));
    assert_eq!(several["choices"].as_array().unwrap().len(), 4);
    // A character that is there.
    let stop: String = text.chars().filter(|&c| c != '\u{fffd}').skip(1).take(1).collect();
    let stopped = server.complete(&json!({
        "prompt": "the model", "max_tokens": 9, "seed": 7, "temperature": 1.0, "top_p": 0.95, "stop": [stop, "never"]
    }));
    assert_eq!(stopped["choices"][0]["finish_reason"], json!("stop"));
    assert!(!stopped["choices"][0]["text"].as_str().unwrap().contains(&stop));

    // Nothing wrong is taken for something else.
    for (body, status, word) in [
        ("{", 400, "completion request"),
        (r#"{"prompt": "a", "max_token": 3}"#, 400, "max_token"),
        (r#"{"prompt": "a", "model": "gpt-5"}"#, 404, "tiny"),
        (r#"{"prompt": "a", "max_tokens": 500}"#, 400, "max_tokens = 500"),
        (r#"{"prompt": [[900]]}"#, 400, "token 900"),
        (r#"{"prompt": []}"#, 400, "no prompt"),
        (r#"{"prompt": "a", "temperature": -2}"#, 400, "temperature"),
        (r#"{"prompt": "a", "logit_bias": {"3": 1}}"#, 400, "logit_bias"),
        (r#"{"prompt": "a", "n": 100000}"#, 400, "sequences"),
    ] {
        let (code, answer) = server.post("/v1/completions", body);
        assert!(code == status && answer.contains(word), "{body}: {code} {answer}");
    }
    assert_eq!(
        server.post("/v1/completions", &format!("{{\"prompt\": \"{}\"}}", "a".repeat(2 << 20))).0,
        413
    );
    assert_eq!(server.get("/v1/completions").0, 405);
    assert_eq!(server.get("/elsewhere").0, 404);
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("mtnlg_requests_total{code=\"400\"} 8"), "{metrics}");
    server.stop();
}

#[test]
fn clients_of_every_kind_leave_nothing_behind() {
    let model = Imported::new();
    let server = Server::start(&model.run, &["--queue", "40", "--slots", "8", "--patience", "5"]);
    let asked = |i: usize| json!({ "prompt": "the model that", "max_tokens": 8, "seed": i % 5, "temperature": 1.0, "logprobs": 2 });
    let right: Vec<Value> = (0..5).map(|i| server.complete(&asked(i))["choices"].clone()).collect();
    let seconds = client::seconds(6);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let (answers, resident) = std::thread::scope(|scope| {
        let work = |i: usize| {
            let (server, right) = (&server, &right);
            let mut answers = 0;
            while std::time::Instant::now() < until {
                match i % 8 {
                    // Goes away before the answer.
                    0 => server.abandon(&asked(i)),
                    // Takes its time over each piece.
                    1 => server.read_slowly(&asked(i)),
                    2 => assert_eq!(server.post("/v1/completions", "{\"prompt\": 3.5").0, 400),
                    3 => assert_eq!(server.garbage(), 400),
                    _ => match server.post("/v1/completions", &asked(i).to_string()) {
                        (200, answer) => {
                            let answer: Value = serde_json::from_str(&answer).unwrap();
                            assert_eq!(answer["choices"], right[i % 5], "client {i}");
                            answers += 1;
                        }
                        (503, _) => std::thread::sleep(std::time::Duration::from_millis(20)),
                        (code, answer) => panic!("{code} {answer}"),
                    },
                }
            }
            answers
        };
        let clients: Vec<_> = (0..64).map(|i| scope.spawn(move || work(i))).collect();
        let each = std::time::Duration::from_millis(1000 * seconds / 12);
        let resident: Vec<u64> = (0..11)
            .map(|_| {
                std::thread::sleep(each);
                server.resident_kib()
            })
            .collect();
        let answers: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        (answers, resident)
    });
    assert!(answers > 20, "{answers} answers");
    // Nothing is still being written for somebody who has gone.
    let idle = |server: &Server| {
        let metrics = server.get("/metrics").1;
        metrics.contains("mtnlg_active_sequences 0\n") && metrics.contains("mtnlg_waiting_sequences 0\n")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !idle(&server) {
        assert!(std::time::Instant::now() < deadline, "{}", server.get("/metrics").1);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(server.complete(&asked(3))["choices"], right[3]);
    println!(
        "{answers} right answers; kB resident, by twelfths of {seconds} s: {resident:?}; {} at the end",
        server.resident_kib()
    );
    server.stop();
}
