//! Loading: everything checked first, then any slice of any tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use model::{GptConfig, Slice};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::geometry::{Box, shared};
use super::manifest::{FILE, Manifest, Refusal, ShardRecord};
use super::{CheckpointError, Meta, directory, list};

/// A checkpoint that has been found whole.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    manifest: Manifest,
    /// For each shard: where its tensors' bytes start in the file.
    offsets: Vec<BTreeMap<String, u64>>,
}

/// A checkpoint that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The checkpoint.
    pub dir: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.dir.display(), self.why)
    }
}

impl Reader {
    /// Opens a checkpoint and checks all of it: the manifest's hash and version, every shard's size and hash, and that the slices that are there make
    /// up every tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], [`CheckpointError::Version`], or the file system's.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let damaged = |why: String| CheckpointError::Damaged { dir: dir.into(), why };
        let path = dir.join(FILE);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if dir.is_dir() => damaged(format!("it has no {FILE}")),
            _ => CheckpointError::io("read", &path, 0, &error),
        })?;
        let manifest = Manifest::open(&text).map_err(|refusal| match refusal {
            Refusal::Version(found) => CheckpointError::Version { dir: dir.into(), found },
            Refusal::Damaged(why) => damaged(why),
        })?;
        let mut shards = Vec::with_capacity(manifest.shards.len());
        for shard in &manifest.shards {
            shards.push(check_shard(dir, shard)?);
        }
        let mut offsets: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new(); shards.len()];
        for (name, record) in &manifest.tensors {
            for slice in &record.slices {
                let found = shards.get(slice.shard).and_then(|shard| shard.get(name));
                match found {
                    Some(tensor) if tensor.shape == slice.shape => {
                        offsets[slice.shard].insert(name.clone(), tensor.offset);
                    }
                    _ => return Err(damaged(format!("{name} is not where {FILE} says"))),
                }
            }
            if !record.is_covered() {
                return Err(damaged(format!("parts of {name} are in no shard")));
            }
        }
        Ok(Self { dir: dir.into(), manifest, offsets })
    }

    /// The newest checkpoint of a run that is whole, and those newer ones that were refused.
    ///
    /// # Errors
    /// [`CheckpointError::NoneGood`], or the directory cannot be read.
    pub fn newest_good(run_dir: &Path) -> Result<(Self, Vec<Refused>), CheckpointError> {
        let mut refused = Vec::new();
        for (_, dir) in list(run_dir)?.into_iter().rev() {
            match Self::open(&dir) {
                Ok(reader) => return Ok((reader, refused)),
                Err(CheckpointError::Damaged { dir, why }) => refused.push(Refused { dir, why }),
                Err(error) => refused.push(Refused { dir, why: error.to_string() }),
            }
        }
        Err(CheckpointError::NoneGood { dir: directory(run_dir), refused })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The hash of its manifest, which has the hashes of all of it.
    pub fn hash(&self) -> String {
        self.manifest.hash()
    }

    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// What it says of the run.
    pub fn meta(&self) -> &Meta {
        &self.manifest.meta
    }

    /// Every tensor's name and global shape, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.manifest.tensors.iter().map(|(name, record)| (name.as_str(), record.shape.as_slice()))
    }

    /// The values of any slice of a tensor, row-major, however the tensor was cut when it was written.
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`] if there is none of that name and global shape; the file system's.
    pub fn read(&self, name: &str, slice: &Slice) -> Result<Vec<f32>, CheckpointError> {
        let wanted = Box { start: &slice.start, shape: &slice.shape };
        let record = self.manifest.tensors.get(name).filter(|record| record.shape == slice.global);
        let Some(record) = record.filter(|_| wanted.fits(&slice.global)) else {
            let (name, shape) = (name.into(), slice.global.clone());
            return Err(CheckpointError::NoTensor { dir: self.dir.clone(), name, shape });
        };
        let stored =
            |index: usize| Box { start: &record.slices[index].start, shape: &record.slices[index].shape };
        // Replicas hold the same values: one slice that has all that is wanted will do.
        let one = (0..record.slices.len()).find(|&index| stored(index).contains(&wanted));
        let indices = one.map_or(0..record.slices.len(), |index| index..index + 1);
        let mut values = vec![0.0; slice.len()];
        for index in indices {
            let runs = shared(&stored(index), &wanted);
            let (Some(first), Some(last)) = (runs.first(), runs.last()) else { continue };
            // One read from the first to the last element that is wanted.
            let shard = record.slices[index].shard;
            let path = self.dir.join(&self.manifest.shards[shard].file);
            let start = self.offsets[shard][name] + (first.from * size_of::<f32>()) as u64;
            let bytes = read_at(&path, start, (last.from + last.len - first.from) * size_of::<f32>())
                .map_err(|error| CheckpointError::io("read", &path, 0, &error))?;
            for run in &runs {
                let from = &bytes[(run.from - first.from) * size_of::<f32>()..];
                let from = from.chunks_exact(size_of::<f32>());
                for (to, from) in values[run.to..run.to + run.len].iter_mut().zip(from) {
                    *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
                }
            }
        }
        Ok(values)
    }

    /// Whether the checkpoint is of this model.
    ///
    /// # Errors
    /// [`CheckpointError::OtherModel`], with the first field that differs.
    pub fn check_model(&self, model: &GptConfig) -> Result<(), CheckpointError> {
        let fields =
            |config: &GptConfig| serde_json::to_value(config).expect("a model has only JSON's types");
        let (theirs, ours) = (fields(&self.manifest.meta.model), fields(model));
        // In the order of the declaration: sizes before the numbers that follow from them.
        let order = ["layers", "hidden", "heads", "seq_len", "vocab", "ffn_hidden"];
        let rest = ours.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str);
        for field in order.into_iter().chain(rest) {
            if theirs[field] != ours[field] {
                return Err(CheckpointError::OtherModel {
                    dir: self.dir.clone(),
                    field: field.into(),
                    checkpoint: theirs[field].to_string(),
                    configured: ours[field].to_string(),
                });
            }
        }
        Ok(())
    }
}

/// A tensor in a shard's file.
struct Stored {
    shape: Vec<usize>,
    offset: u64,
}

/// Checks a shard's size and hash, and reads where its tensors lie.
fn check_shard(dir: &Path, shard: &ShardRecord) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let damaged =
        |why: &str| CheckpointError::Damaged { dir: dir.into(), why: format!("{} {why}", shard.file) };
    // A name from a file: it must not lead out of the checkpoint.
    if Path::new(&shard.file).file_name() != Some(shard.file.as_ref()) {
        return Err(damaged("is not the name of a file"));
    }
    let path = dir.join(&shard.file);
    let io_error = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => damaged("is missing"),
        io::ErrorKind::UnexpectedEof => damaged("is cut short"),
        _ => CheckpointError::io("read", &path, 0, &error),
    };
    let mut file = File::open(&path).map_err(io_error)?;
    let bytes = file.metadata().map_err(io_error)?.len();
    if bytes != shard.bytes {
        return Err(damaged(&format!("has {bytes} bytes instead of {}", shard.bytes)));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).map_err(io_error)?;
    if hasher.finalize().to_hex().as_str() != shard.blake3 {
        return Err(damaged("does not match its hash: it was altered"));
    }
    let mut length = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut length)).map_err(io_error)?;
    let length = u64::from_le_bytes(length);
    if length > bytes.saturating_sub(8) {
        return Err(damaged("has a header longer than itself"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io_error)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(&error.to_string()))?;
    if 8 + length + header.data_len() as u64 != bytes {
        return Err(damaged("has a header that does not fit it"));
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        if info.dtype != Dtype::F32 {
            return Err(damaged(&format!("holds {name} as {:?} instead of F32", info.dtype)));
        }
        let offset = 8 + length + info.data_offsets.0 as u64;
        tensors.insert(name, Stored { shape: info.shape.clone(), offset });
    }
    Ok(tensors)
}

fn read_at(path: &Path, start: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
