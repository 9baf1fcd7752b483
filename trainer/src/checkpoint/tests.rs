//! Saving and loading against a real file system: any cut, any damage, a full disk.

use std::fs;
use std::path::Path;

use model::{GptConfig, Slice};
use proptest::prelude::*;

use super::*;

pub fn meta() -> Meta {
    Meta {
        model: GptConfig::new(2, 8, 2, 4, 16),
        samples_consumed: 640,
        updates: 3,
        scheduled_tokens: 4,
        loss_scale: None,
        seed: 1234,
        tokenizer: TokenizerId { name: "bpe:16".into(), blake3: "00".into(), tokens: 16 },
        data: vec!["book 1.0 00".into()],
        layout: "tensor 2 x pipeline 1 x data 1".into(),
    }
}

/// The value of a global element: its index, told apart between tensors.
fn values(slice: &Slice, tensor: usize) -> Vec<f32> {
    let index = |(first, len): (u64, usize)| first..first + len as u64;
    slice.runs().into_iter().flat_map(index).map(|i| (tensor as u64 * 100_000 + i) as f32).collect()
}

/// Saves `a` [6, 4] cut by rows in two, and `b` [3] whole.
pub fn save(run_dir: &Path, step: u64, keep: usize) -> PathBuf {
    let writer = Writer::begin(run_dir, step).unwrap();
    let whole = Slice::whole(&[3]);
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let (writer, whole) = (&writer, &whole);
            scope.spawn(move || {
                let part = Slice::part(&[6, 4], 0, rank, 2);
                let (a, b) = (values(&part, 0), values(whole, 1));
                let mut tensors = vec![ShardTensor { name: "a", slice: &part, values: &a }];
                if rank == 0 {
                    tensors.push(ShardTensor { name: "b", slice: whole, values: &b });
                }
                writer.write_shard(rank, &tensors).unwrap();
            });
        }
    });
    writer.finish(meta(), keep).unwrap()
}

fn steps(run_dir: &Path) -> Vec<u64> {
    list(run_dir).unwrap().into_iter().map(|(step, _)| step).collect()
}

/// What is in the checkpoints' directory, hidden entries included.
pub fn entries(run_dir: &Path) -> Vec<String> {
    let dir = fs::read_dir(directory(run_dir)).unwrap();
    let mut names: Vec<String> = dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_comes_back() {
    let run = tempfile::tempdir().unwrap();
    let dir = save(run.path(), 5, 3);
    assert_eq!(dir, directory(run.path()).join("step-5"));
    let reader = Reader::open(&dir).unwrap();
    assert_eq!((reader.step(), reader.meta()), (5, &meta()));
    let tensors: Vec<(&str, &[usize])> = reader.tensors().collect();
    assert_eq!(tensors, [("a", &[6, 4][..]), ("b", &[3][..])]);
    for slice in [Slice::whole(&[6, 4]), Slice::part(&[6, 4], 1, 1, 2), Slice::part(&[6, 4], 0, 1, 3)] {
        assert_eq!(reader.read("a", &slice).unwrap(), values(&slice, 0));
    }
    assert_eq!(entries(run.path()), ["step-5"]);
    let shape = CheckpointError::NoTensor { dir, name: "a".into(), shape: vec![4, 6] };
    assert_eq!(reader.read("a", &Slice::whole(&[4, 6])).unwrap_err(), shape);
    assert!(reader.read("c", &Slice::whole(&[3])).is_err());
}

#[test]
fn bits_survive() {
    let run = tempfile::tempdir().unwrap();
    let odd = [f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::from_bits(0x7fc0_0001), 0.1];
    let slice = Slice::whole(&[6]);
    let writer = Writer::begin(run.path(), 1).unwrap();
    writer.write_shard(0, &[ShardTensor { name: "odd", slice: &slice, values: &odd }]).unwrap();
    let reader = Reader::open(&writer.finish(meta(), 1).unwrap()).unwrap();
    let back = reader.read("odd", &slice).unwrap();
    assert_eq!(back.map_bits(), odd.to_vec().map_bits());
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}
impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|x| x.to_bits()).collect()
    }
}

#[test]
fn the_files_are_safetensors() {
    let run = tempfile::tempdir().unwrap();
    let dir = save(run.path(), 1, 1);
    let bytes = fs::read(dir.join("shard-00000.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names().len(), 2);
    let a = file.tensor("a").unwrap();
    assert_eq!((a.shape(), a.dtype()), (&[3, 4][..], safetensors::Dtype::F32));
    assert_eq!(a.data()[4..8], 1.0f32.to_le_bytes());
}

/// Cuts `0..extent` at random places into consecutive parts.
fn cuts(extent: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec(0..=extent, 0..4).prop_map(move |mut faces| {
        faces.extend([0, extent]);
        faces.sort_unstable();
        faces.dedup();
        faces.windows(2).map(|w| (w[0], w[1] - w[0])).collect()
    })
}

/// A tensor, a grid of slices that covers it, and some slices more that overlap those.
fn cut_tensor() -> impl Strategy<Value = Vec<Slice>> {
    let extents = proptest::collection::vec(1usize..7, 1..4);
    extents.prop_flat_map(|global| {
        let axes: Vec<_> = global.iter().map(|&extent| cuts(extent)).collect();
        let extra = proptest::collection::vec(any_slice(global.clone()), 0..3);
        (axes, extra).prop_map(move |(axes, extra)| {
            let mut grid = vec![Slice { global: global.clone(), start: vec![], shape: vec![] }];
            for parts in &axes {
                let longer = |slice: &Slice| {
                    let slice = slice.clone();
                    parts.iter().map(move |&(start, len)| {
                        let mut slice = slice.clone();
                        slice.start.push(start);
                        slice.shape.push(len);
                        slice
                    })
                };
                grid = grid.iter().flat_map(longer).collect();
            }
            grid.extend(extra);
            grid
        })
    })
}

fn any_slice(global: Vec<usize>) -> impl Strategy<Value = Slice> {
    let axes: Vec<_> =
        global.iter().map(|&n| (0..n).prop_flat_map(move |start| (Just(start), 1..=n - start))).collect();
    axes.prop_map(move |axes| {
        let (start, shape) = axes.into_iter().unzip();
        Slice { global: global.clone(), start, shape }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_reads_back_as_any_other(
        (slices, wanted) in cut_tensor().prop_flat_map(|slices| {
            let wanted = any_slice(slices[0].global.clone());
            (Just(slices), proptest::collection::vec(wanted, 1..6))
        }),
        shards in 1usize..4,
    ) {
        let run = tempfile::tempdir().unwrap();
        let writer = Writer::begin(run.path(), 1).unwrap();
        // A shard holds a name once: slice i of the tensor goes to a shard of its own, and the moments to others.
        for (index, slice) in slices.iter().enumerate() {
            let value = values(slice, 0);
            writer.write_shard(index * shards, &[ShardTensor { name: "w", slice, values: &value }]).unwrap();
        }
        let reader = Reader::open(&writer.finish(meta(), 1).unwrap()).unwrap();
        for slice in wanted.iter().chain([&Slice::whole(&slices[0].global)]) {
            prop_assert_eq!(reader.read("w", slice).unwrap(), values(slice, 0));
        }
    }

    #[test]
    fn any_altered_byte_is_refused(file in 0usize..3, at in any::<prop::sample::Index>(), flip in 1u8..=255) {
        let run = tempfile::tempdir().unwrap();
        let dir = save(run.path(), 1, 1);
        let path = dir.join(["manifest.json", "shard-00000.safetensors", "shard-00001.safetensors"][file]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let space = |byte: u8| byte.is_ascii_whitespace();
        // White space between the manifest's tokens says nothing.
        prop_assume!(!(file == 0 && space(bytes[at]) && space(bytes[at] ^ flip)));
        fs::write(&path, bytes).unwrap();
        let error = Reader::open(&dir).unwrap_err();
        prop_assert!(error.to_string().contains(&dir.display().to_string()), "{}", error);
    }

    #[test]
    fn any_torn_file_is_refused(file in 0usize..3, at in any::<prop::sample::Index>()) {
        let run = tempfile::tempdir().unwrap();
        let dir = save(run.path(), 1, 1);
        let path = dir.join(["manifest.json", "shard-00000.safetensors", "shard-00001.safetensors"][file]);
        let bytes = fs::read(&path).unwrap();
        // The manifest's last byte is a line end.
        fs::write(&path, &bytes[..at.index(bytes.len() - 1)]).unwrap();
        prop_assert!(Reader::open(&dir).is_err());
    }
}

#[test]
fn the_newest_good_one_is_used_and_the_others_named() {
    let run = tempfile::tempdir().unwrap();
    for step in [9, 10, 11, 12] {
        save(run.path(), step, 9);
    }
    let checkpoints = directory(run.path());
    fs::remove_file(checkpoints.join("step-12/manifest.json")).unwrap();
    fs::remove_file(checkpoints.join("step-11/shard-00001.safetensors")).unwrap();
    let (reader, refused) = Reader::newest_good(run.path()).unwrap();
    assert_eq!(reader.step(), 10);
    let said: Vec<String> = refused.iter().map(Refused::to_string).collect();
    assert!(said[0].ends_with("step-12: it has no manifest.json"), "{said:?}");
    assert!(said[1].ends_with("step-11: shard-00001.safetensors is missing"), "{said:?}");

    fs::remove_dir_all(checkpoints.join("step-10")).unwrap();
    fs::write(checkpoints.join("step-9/manifest.json"), "{").unwrap();
    let error = Reader::newest_good(run.path()).unwrap_err();
    assert!(matches!(&error, CheckpointError::NoneGood { refused, .. } if refused.len() == 3), "{error}");
    assert!(error.to_string().contains("step-9"), "{error}");
    assert_eq!(crate::Error::from(error).exit_code(), 2);
    assert!(Reader::newest_good(&run.path().join("nowhere")).is_err());
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let run = tempfile::tempdir().unwrap();
    let dir = save(run.path(), 1, 1);
    let path = dir.join("manifest.json");
    let version = |n: u64| format!("\"version\": {n}");
    let (now, next) = (FORMAT_VERSION, FORMAT_VERSION + 1);
    let text = fs::read_to_string(&path).unwrap().replacen(&version(now), &version(next), 1);
    fs::write(&path, text).unwrap();
    assert_eq!(Reader::open(&dir).unwrap_err(), CheckpointError::Version { dir, found: next.to_string() });
}

#[test]
fn another_model_is_told_by_its_first_field() {
    let run = tempfile::tempdir().unwrap();
    let reader = Reader::open(&save(run.path(), 1, 1)).unwrap();
    reader.check_model(&meta().model).unwrap();
    let other = GptConfig { heads: 4, vocab: 32, ..meta().model };
    let error = reader.check_model(&other).unwrap_err().to_string();
    assert!(error.contains("model.heads is 2 there and 4 here"), "{error}");
    let other = GptConfig { dropout: 0.5, ..meta().model };
    assert!(reader.check_model(&other).unwrap_err().to_string().contains("model.dropout"));
}

#[test]
fn old_ones_are_pruned_and_a_step_may_be_saved_again() {
    let run = tempfile::tempdir().unwrap();
    for step in [10, 20, 30, 40] {
        save(run.path(), step, 2);
    }
    assert_eq!(steps(run.path()), [30, 40]);
    save(run.path(), 40, 2);
    assert_eq!(entries(run.path()), ["step-30", "step-40"]);
    // A run resumed from 30 saves 35: 40 is of another future.
    save(run.path(), 35, 2);
    assert_eq!(steps(run.path()), [30, 35, 40]);
    discard_after(run.path(), 35).unwrap();
    assert_eq!(steps(run.path()), [30, 35]);
}

#[test]
fn what_does_not_fit_together_is_refused_and_leaves_nothing() {
    let run = tempfile::tempdir().unwrap();
    let half = Slice::part(&[4], 0, 0, 2);
    fn tensor(slice: &Slice) -> ShardTensor<'_> {
        ShardTensor { name: "a", slice, values: &[1.0, 2.0] }
    }
    let inconsistent = |error: CheckpointError| matches!(error, CheckpointError::Inconsistent { .. });

    let writer = Writer::begin(run.path(), 1).unwrap();
    writer.write_shard(0, &[tensor(&half)]).unwrap();
    assert!(inconsistent(writer.finish(meta(), 1).unwrap_err()));
    drop(writer);

    let writer = Writer::begin(run.path(), 1).unwrap();
    assert!(inconsistent(writer.write_shard(0, &[tensor(&Slice::whole(&[3]))]).unwrap_err()));
    assert_eq!(writer.write_shard(1, &[tensor(&half)]).unwrap_err(), CheckpointError::GivenUp);
    assert!(inconsistent(writer.finish(meta(), 1).unwrap_err()));
    drop(writer);

    let writer = Writer::begin(run.path(), 1).unwrap();
    assert!(inconsistent(writer.write_shard(0, &[tensor(&half), tensor(&half)]).unwrap_err()));
    drop(writer);

    let writer = Writer::begin(run.path(), 1).unwrap();
    writer.write_shard(0, &[tensor(&half)]).unwrap();
    assert!(inconsistent(writer.write_shard(0, &[tensor(&half)]).unwrap_err()));
    drop(writer);
    assert!(entries(run.path()).is_empty());
}

#[test]
fn what_a_killed_run_left_is_no_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let writer = Writer::begin(run.path(), 7).unwrap();
    let slice = Slice::whole(&[2]);
    writer.write_shard(0, &[ShardTensor { name: "a", slice: &slice, values: &[1.0, 2.0] }]).unwrap();
    // A killed process runs no destructor.
    std::mem::forget(writer);
    assert_eq!(entries(run.path()), [".step-7.partial"]);
    assert!(list(run.path()).unwrap().is_empty());
    save(run.path(), 7, 1);
    assert_eq!(entries(run.path()), ["step-7"]);
}
