//! Megatron-LM's torch checkpoints: what is imported of those in `fixtures/megatron` (written by `fixtures/megatron.py`) is, bit for bit, what is imported of the
//! same model from transformers; what cannot be imported is refused.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod checkpoint;

use std::path::{Path, PathBuf};
use std::process::Output;

use checkpoint::{checkpoint, done, said, text};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn import(source: &Path, output: &Path) -> Output {
    let tokenizer = fixtures().join("gpt2/tokenizer.json");
    checkpoint(&["import", text(source), "--output", text(output), "--tokenizer", text(&tokenizer)])
}

/// A copy of one fixture.
fn copy(name: &str, to: &Path) -> PathBuf {
    let (from, to) = (fixtures().join("megatron").join(name), to.join(name));
    copy_all(&from, &to);
    to
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy_all(&from, &to),
            false => drop(std::fs::copy(from, to).unwrap()),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap()
}

/// Changes the bytes of an entry of an archive, which `changed` must be as long as; its checksum is made to fit.
fn patch(path: &Path, entry: &str, change: impl FnOnce(&mut [u8])) {
    let mut file = std::fs::read(path).unwrap();
    // The directory's header of the entry: the name is 46 bytes into it, and is there a second time at the entry itself.
    let name = file.windows(entry.len()).rposition(|window| window == entry.as_bytes()).unwrap();
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (directory, len, local) = (name - 46, number(name - 46 + 24), number(name - 46 + 42));
    let lengths: [u16; 2] = bytemuck::pod_read_unaligned(&file[local + 26..local + 30]);
    let start = local + 30 + usize::from(lengths[0]) + usize::from(lengths[1]);
    change(&mut file[start..start + len]);
    let crc = crc32fast::hash(&file[start..start + len]).to_le_bytes();
    file[directory + 16..directory + 20].copy_from_slice(&crc);
    std::fs::write(path, file).unwrap();
}

/// Puts `to` for the first `from`, which is as long, in the pickle of a file.
fn repickle(path: &Path, from: &[u8], to: &[u8]) {
    patch(path, "model_optim_rng/data.pkl", |bytes| {
        let at = find(bytes, from);
        bytes[at..at + to.len()].copy_from_slice(to);
    });
}

const V3: [&str; 4] = ["00_000", "00_001", "01_000", "01_001"];

fn rank_file(source: &Path, rank: &str) -> PathBuf {
    source.join(format!("iter_0000123/mp_rank_{rank}/model_optim_rng.pt"))
}

/// In f32, f16 and bf16, of one to four ranks, with three orders of queries, keys and values.
#[test]
fn an_imported_model_is_the_one_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let hf = dir.path().join("hf");
    done(&["import", text(&fixtures().join("gpt2")), "--output", text(&hf)]);
    for (name, dtype, words) in [
        ("v3", "f32", "iteration 123 of 2 x 2 (tensor x pipeline) ranks, version 3"),
        ("v2", "f16", "iteration 7 of 1 x 2 (tensor x pipeline) ranks, version 2"),
        ("v1", "bf16", "a release of 1 x 1 (tensor x pipeline) ranks, version 1"),
    ] {
        let [ours, narrow, theirs] =
            ["ours", "narrow", "theirs"].map(|part| dir.path().join(name).join(part));
        let output = import(&fixtures().join("megatron").join(name), &ours);
        let said = said(&output);
        assert!(output.status.success(), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
        assert!(said.contains("301 tokens (padded to 384)"), "{name}: {said}");
        assert!(said.contains("not imported: optimizer state"), "{name}: {said}");
        // The same model from transformers, rounded as this one was when it was written.
        done(&["export", text(&hf), "--output", text(&narrow), "--dtype", dtype]);
        done(&["import", text(&narrow), "--output", text(&theirs)]);
        let words = done(&["diff", text(&ours), text(&theirs)]);
        assert!(words.contains("equal: 40 tensors, bit for bit"), "{name}: {words}");
        let sizes = |run: &Path| {
            let listing = done(&["inspect", text(run), "--json"]);
            let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
            let mut model = listing["model"].clone();
            // What is trained with, beside the sizes.
            model["dropout"].take();
            (model, listing["tokenizer"]["tokens"].clone())
        };
        assert_eq!(sizes(&ours), sizes(&theirs), "{name}");
    }
}

#[test]
fn a_checkpoint_is_inspected() {
    let source = fixtures().join("megatron/v3");
    let words = done(&["inspect", text(&source)]);
    assert!(
        words.contains("3 layers, hidden 24, 4 heads, FFN 80, 24 positions, vocabulary 304, f32"),
        "{words}"
    );
    assert!(words.contains("encoder.layers.2.self_attention.query_key_value.weight"), "{words}");
    let listing = done(&["inspect", text(&source.join("iter_0000123")), "--json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert_eq!((&listing["tensor_parallel"], &listing["iteration"]), (&2.into(), &123.into()));
    assert_eq!(listing["tensors"].as_array().unwrap().len(), 40);
    assert_eq!(listing["tensors"][0], serde_json::json!(["embedding.word_embeddings.weight", [304, 24]]));
}

/// What is done to a copy of `v3`, and what is said of it then.
type Mistake = (&'static str, fn(&Path), &'static [&'static str]);

fn everywhere(source: &Path, from: &[u8], to: &[u8]) {
    V3.iter().for_each(|rank| repickle(&rank_file(source, rank), from, to));
}

const MISTAKES: &[Mistake] = &[
    (
        "a rank is missing",
        |source| std::fs::remove_file(rank_file(source, "01_001")).unwrap(),
        &["a file of the 2 x 2 (tensor x pipeline) ranks is missing", "mp_rank_01_001/model_optim_rng.pt"],
    ),
    (
        "the first rank is missing",
        |source| std::fs::remove_dir_all(source.join("iter_0000123/mp_rank_00_000")).unwrap(),
        &["the checkpoint has no first rank", "mp_rank_00"],
    ),
    (
        "a rank too many",
        |source| std::fs::create_dir(source.join("iter_0000123/mp_rank_02_000")).unwrap(),
        &["mp_rank_02_000 is none of the 2 x 2"],
    ),
    (
        "no such iteration",
        |source| std::fs::write(source.join("latest_checkpointed_iteration.txt"), "124\n").unwrap(),
        &["latest_checkpointed_iteration.txt names iter_0000124, which is not there"],
    ),
    (
        "no iteration",
        |source| std::fs::write(source.join("latest_checkpointed_iteration.txt"), "latest").unwrap(),
        &["neither an iteration nor the word release", "value: latest"],
    ),
    (
        "no args",
        |source| everywhere(source, b"\x04\0\0\0args", b"\x04\0\0\0argz"),
        &["the checkpoint has no args"],
    ),
    (
        "an arg is missing",
        |source| everywhere(source, b"hidden_size", b"hidden_sise"),
        &["the checkpoint's args have no hidden_size"],
    ),
    (
        "ranks of other sizes",
        |source| repickle(&rank_file(source, "01_000"), b"num_layersq\x05K\x03", b"num_layersq\x05K\x04"),
        &["its num_layers is 4, and that of the first rank is 3", "mp_rank_01_000"],
    ),
    (
        "ranks of other steps",
        |source| repickle(&rank_file(source, "00_001"), b"K{", b"K|"),
        &["its iteration is 124, and that of the first rank is 123", "mp_rank_00_001"],
    ),
    (
        "more layers than there are",
        |source| everywhere(source, b"num_layersq\x05K\x03", b"num_layersq\x05K\x04"),
        &["the files have 3 layers, and num_layers is 4"],
    ),
    (
        "another shape",
        |source| everywhere(source, b"ffn_hidden_sizeq\x07KP", b"ffn_hidden_sizeq\x07K`"),
        &["dense_h_to_4h.weight has shape [40, 24], and the checkpoint's args make it [48, 24]"],
    ),
    (
        "heads that do not divide",
        |source| everywhere(source, b"num_attention_headsq\x08K\x04", b"num_attention_headsq\x08K\x05"),
        &["num_attention_heads is 5, not a divisor of hidden_size = 24"],
    ),
    (
        "SwiGLU",
        |source| everywhere(source, b"swigluq'\x89", b"swigluq'\x88"),
        &["the checkpoint's swiglu is True, and the model here has a GELU"],
    ),
    (
        "the exact GELU",
        |source| everywhere(source, b"bias_gelu_fusionq\x14\x88", b"bias_gelu_fusionq\x14\x89"),
        &["bias_gelu_fusion is False, and the model here has the GELU's tanh approximation"],
    ),
    (
        "rotary positions",
        |source| everywhere(source, b"learned_absolute", b"rope_of_16_chars"),
        &["position_embedding_type is 'rope_of_16_chars', and the model here has learned_absolute"],
    ),
    (
        "no LayerNorm",
        |source| everywhere(source, b"LayerNorm", b"RMSNorm__"),
        &["normalization is 'RMSNorm__', and the model here has LayerNorm"],
    ),
    (
        "untied",
        |source| everywhere(source, b"output_weightsq.\x89", b"output_weightsq.\x88"),
        &["untie_embeddings_and_output_weights is True"],
    ),
    (
        "grouped queries",
        |source| everywhere(source, b"group_query_attentionq/\x89", b"group_query_attentionq/\x88"),
        &["num_query_groups is 1, and the model here has keys and values for each of 4 heads"],
    ),
    (
        "a version to come",
        |source| everywhere(source, b"checkpoint_versionq5G@\x08", b"checkpoint_versionq5G@\x10"),
        &["checkpoint_version 4 is not one of 0, 1, 2 and 3"],
    ),
    (
        "another tokenizer",
        |source| everywhere(source, b"divisible_byq\x17K\x08", b"divisible_byq\x17K\x10"),
        &["has 301 tokens, and the checkpoint has padded_vocab_size = 304, in steps of 16 x 2"],
    ),
    (
        "another type",
        |source| everywhere(source, b"torch\nFloatStorage", b"torch\nByteeStorage"),
        &["is of torch.ByteeStorage", "float32, float16 or bfloat16"],
    ),
    (
        "a tensor of another name",
        |source| everywhere(source, b"layers.0.mlp.dense_h_to_4h.bias", b"layers.0.mlp.dense_h_to_4h.bios"),
        &["there is no tensor encoder.layers.0.mlp.dense_h_to_4h.bias"],
    ),
];

/// Each is refused with one message and exit code 2, and nothing is left behind.
#[test]
fn what_cannot_be_imported_is_refused() {
    for (name, mistake, words) in MISTAKES {
        let dir = tempfile::tempdir().unwrap();
        let (source, output) = (copy("v3", dir.path()), dir.path().join("run"));
        // The mistake alone makes the difference: whatever the copy lacks at first would be said here.
        mistake(&source);
        refused(name, &source, &output, words);
    }
}

fn refused(name: &str, source: &Path, output: &Path, words: &[&str]) {
    let result = import(source, output);
    let said = said(&result);
    assert_eq!(result.status.code(), Some(2), "{name}: {said}");
    words.iter().for_each(|words| assert!(said.contains(words), "{name}: {words}: {said}"));
    assert!(!output.exists(), "{name}");
    let left = std::fs::read_dir(output.parent().unwrap()).unwrap();
    let hidden = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "{name}");
}

#[test]
fn weights_that_contradict_each_other_are_refused() {
    let one = |bytes: &mut [u8]| bytes[2] ^= 0x40;
    // Storages of a file that is not one buffer are numbered in the order of its tensors; the last stage's is one buffer, with the head at its end.
    let last = |bytes: &mut [u8]| bytes[bytes.len() - 2] ^= 0x40;
    for (name, rank, entry, change, words) in [
        (
            "LayerNorms that differ",
            "00_000",
            "model_optim_rng/data/0",
            one as fn(&mut [u8]),
            "encoder.layers.0.input_layernorm.weight must be the same in two files",
        ),
        (
            "a head that is not the embedding",
            "01_001",
            "model_optim_rng/data/0",
            last,
            "the embedding, which the last stage has for its logits, must be the same in two files",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (source, output) = (copy("v3", dir.path()), dir.path().join("run"));
        patch(&rank_file(&source, rank), entry, change);
        refused(name, &source, &output, &[words]);
    }
}

/// A file cut anywhere, or with a byte changed anywhere outside of what is not read, is refused or gives the same model.
#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = copy("v1", dir.path());
    let file = source.join("release/mp_rank_00/model_optim_rng.pt");
    let whole = std::fs::read(&file).unwrap();
    let output = dir.path().join("run");
    for cut in [0, 1, 21, 22, 4000, whole.len() / 2, whole.len() - 23, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        refused(
            "cut short",
            &source,
            &output,
            &["it is no whole file of torch.save", "at byte", "model_optim_rng.pt"],
        );
    }
    for (at, words) in [
        (find(&whole, b"num_layers"), "data.pkl has another checksum"),
        (find(&whole, b"num_layers") + 30_000, "data/0 has another checksum"),
    ] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        refused("changed", &source, &output, &[words]);
    }
    std::fs::write(&file, [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", &whole[..]].concat()).unwrap();
    refused("old", &source, &output, &["it is in the format of PyTorch before 1.6", "torch.load"]);
    std::fs::write(&file, whole).unwrap();
    patch(&file, "model_optim_rng/byteorder", |bytes| bytes.copy_from_slice(b"bigger"));
    refused("big-endian", &source, &output, &["it is from a big-endian machine"]);
}
