//! Models from and to Hugging Face's transformers: a random GPT-2 that transformers wrote (`fixtures/gpt2.py`), its logits, and the way back.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod checkpoint;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backend::{Backend, Class, Communicator, DType, Group, GroupKind, Shape};
use checkpoint::{checkpoint, done, said, text};
use model::layers::Scratch;
use model::{Microbatch, Shard, Stage, StageOptions, TensorGroup};
use safetensors::SafeTensors;
use trainer::checkpoint::Reader;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2")
}

/// The logits of the model in a checkpoint, cut over `tp` ranks, for `[b, s]` tokens; `[b s, vocab]`.
fn logits(run: &Path, tp: usize, tokens: &[u32], b: usize) -> Vec<Vec<f32>> {
    let reader = Reader::open(&run.join("checkpoints/step-0")).unwrap();
    let config = &reader.meta().model;
    let communicators = backend_cpu::cluster(tp, std::time::Duration::from_secs(60));
    let parts = backend::local::run(communicators, |communicator| -> backend::Result<Vec<f32>> {
        let backend = communicator.backend();
        let shard =
            Shard { tensor_rank: communicator.rank(), tensor_size: tp, chunks: tp, ..Shard::whole(config) };
        let group =
            TensorGroup::new(communicator, Group::new(GroupKind::Tensor, (0..tp).collect::<Vec<_>>()));
        let options = StageOptions::plain(b, tokens.len() / b);
        let scratch = Scratch::new(backend, &options.dims(config, &shard), options.recompute, &[])?;
        let stage = Stage::new(backend, group, config, &shard, &options, Arc::new(scratch))?;
        for entry in stage.parameters().entries() {
            let values = reader.read(&entry.parameter.name, &entry.parameter.slice).unwrap();
            let to = stage.parameters().values().rows(entry.offset, values.len())?;
            backend.write(to, bytemuck::cast_slice(&values))?;
        }
        let kept = stage.activations()?;
        backend.write(kept.tokens().unwrap(), bytemuck::cast_slice(tokens))?;
        backend.write(kept.targets().unwrap(), bytemuck::cast_slice(tokens))?;
        let loss = backend.alloc(Class::Workspace, DType::F32, Shape::new(&[1]))?;
        let all = Microbatch { index: 0, first_sample: 0, dropout_seed: None, weight: 0.0, loss_scale: 1.0 };
        stage.forward(&kept, &all, loss.view())?;
        let view = kept.logits(0).unwrap();
        let mut values = vec![0.0_f32; view.len()];
        backend.read(view, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    })
    .unwrap();
    let width = config.vocab / tp;
    let row = |i: usize| parts.iter().flat_map(|part| part[i * width..(i + 1) * width].to_vec()).collect();
    (0..tokens.len()).map(row).collect()
}

#[test]
fn an_imported_model_has_the_logits_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let words = done(&["import", text(&fixture()), "--output", text(&run)]);
    assert!(words.contains("301 tokens (padded to 384)"), "{words}");
    let file = std::fs::read(fixture().join("logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(file.tensor("tokens").unwrap().data());
    let expected: Vec<f64> = bytemuck::pod_collect_to_vec(file.tensor("logits").unwrap().data());
    for tp in [1, 2] {
        let ours = logits(&run, tp, &tokens, 2);
        let worst = ours
            .iter()
            .zip(expected.chunks(301))
            .flat_map(|(ours, theirs)| ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - b).abs()))
            .fold(0.0, f64::max);
        assert!(worst < 1e-5, "tp {tp}: {worst:e}");
        assert!(ours.iter().all(|row| row[301..].iter().all(|&x| x == 0.0)), "padding has no weights");
    }
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    let [run, out, again] = ["run", "out", "again"].map(|name| dir.path().join(name));
    done(&["import", text(&fixture()), "--output", text(&run)]);
    done(&["verify", text(&run)]);
    done(&["export", text(&run), "--output", text(&out)]);
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    let (theirs, ours) = (read(&fixture()), read(&out));
    let (theirs, ours) =
        (SafeTensors::deserialize(&theirs).unwrap(), SafeTensors::deserialize(&ours).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in theirs.tensors() {
        let written = ours.tensor(&name).unwrap();
        assert_eq!((written.shape(), written.data()), (tensor.shape(), tensor.data()), "{name}");
    }
    let config = |dir: &Path| trainer::exchange::gpt2::Gpt2Config::read(&dir.join("config.json")).unwrap();
    assert_eq!(config(&out), config(&fixture()));

    // And back again, also from narrower weights, which differ.
    done(&["import", text(&out), "--output", text(&again)]);
    let words = done(&["diff", text(&run), text(&again)]);
    assert!(words.contains("bit for bit"), "{words}");
    let [narrow, rounded] = ["narrow", "rounded"].map(|name| dir.path().join(name));
    done(&["export", text(&run), "--output", text(&narrow), "--dtype", "bf16"]);
    done(&["import", text(&narrow), "--output", text(&rounded)]);
    let output = checkpoint(&["diff", text(&run), text(&rounded)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("layers.0.attention.qkv.weight"), "{}", said(&output));
    let listing = done(&["inspect", text(&run), "--json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert_eq!((&listing["model"]["layers"], &listing["tokenizer"]["tokens"]), (&3.into(), &301.into()));
}

/// An imported model is a run that goes on with whatever data it is given.
#[test]
fn an_imported_model_is_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let [run, data] = ["run", "text.jsonl"].map(|name| dir.path().join(name));
    done(&["import", text(&fixture()), "--output", text(&run)]);
    let document =
        |i: usize| format!("{{\"text\": \"{}\"}}\n", format!("the paper and the text {i} ").repeat(30));
    std::fs::write(&data, (0..60).map(document).collect::<String>()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtnlg"));
    command.args([
        "train",
        "--backend",
        "cpu",
        "--steps",
        "2",
        "--tensor",
        "2",
        "--set",
        "train.valid_batches=1",
    ]);
    command.arg("--resume").arg(&run).arg("--data").arg(&data).env("MTNLG_CACHE", dir.path().join("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let words = done(&["inspect", text(&run)]);
    assert!(words.contains("step 2, 2 updates") && words.contains("Adam's moments"), "{words}");
}

/// Each refused with one message and exit code 2, and nothing is left behind.
#[test]
fn what_cannot_be_imported_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let copy = |name: &str| {
        let to = dir.path().join(name);
        std::fs::create_dir(&to).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(fixture().join(file), to.join(file)).unwrap();
        }
        to
    };
    let with = |name: &str, from: &str, to: &str| {
        let dir = copy(name);
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(config.contains(from));
        std::fs::write(dir.join("config.json"), config.replace(from, to)).unwrap();
        dir
    };
    let nothing = dir.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let short = copy("short");
    let weights = std::fs::read(short.join("model.safetensors")).unwrap();
    std::fs::write(short.join("model.safetensors"), &weights[..weights.len() - 4]).unwrap();
    let header = copy("header");
    std::fs::write(header.join("model.safetensors"), [&u64::MAX.to_le_bytes()[..], &weights[8..]].concat())
        .unwrap();
    for (source, words) in [
        (nothing, "there is no config.json"),
        (short, "its header does not fit it"),
        (header, "its header is longer than itself"),
        (with("llama", "\"gpt2\"", "\"llama\""), "model_type is llama"),
        (with("relu", "gelu_new", "relu"), "activation_function is relu"),
        (
            with("untied", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"),
            "tie_word_embeddings is false",
        ),
        (with("layers", "\"n_layer\": 3", "\"n_layer\": 2"), "is no tensor of a GPT-2 of 2 layers"),
        (
            with("wide", "\"n_inner\": 80", "\"n_inner\": 96"),
            "shape [24, 80], and the model's sizes make it [24, 96]",
        ),
        (with("heads", "\"n_head\": 4", "\"n_head\": 5"), "n_head = 5 does not divide n_embd = 24"),
        (
            with("vocabulary", "\"vocab_size\": 301", "\"vocab_size\": 300"),
            "has 301 tokens, and the model a vocabulary of 300",
        ),
    ] {
        let result = checkpoint(&["import", text(&source), "--output", text(&output)]);
        let said = said(&result);
        assert_eq!(result.status.code(), Some(2), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!output.exists(), "{words}");
    }
    let hidden = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0);
    done(&["import", text(&fixture()), "--output", text(&output)]);
    let again = checkpoint(&["import", text(&fixture()), "--output", text(&output)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(said(&again).contains("not empty"), "{}", said(&again));
}
