//! Saving: shards from any thread, then one rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::Slice;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::geometry::{Box, covered};
use super::manifest::{FILE, FORMAT_VERSION, Manifest, ShardRecord, SliceRecord, TensorRecord};
use super::{CheckpointError, Meta, ShardTensor, directory, list};

/// A checkpoint on its way to the disk. Dropped before [`finish`](Self::finish), it removes what it wrote.
#[derive(Debug)]
pub struct Writer {
    run_dir: PathBuf,
    step: u64,
    temporary: PathBuf,
    /// Whether other processes write shards too.
    shared: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<usize, Shard>,
    failure: Option<CheckpointError>,
    finished: bool,
}

/// What one shard holds.
#[derive(Debug)]
struct Shard {
    record: ShardRecord,
    tensors: Vec<(String, Slice)>,
}

/// A shard's contents, beside it until the manifest has them.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    record: ShardRecord,
    /// Name, global shape, start and shape of each tensor.
    tensors: Vec<(String, [Vec<usize>; 3])>,
}

/// How notes are named, by shard.
const NOTE: &str = ".note.json";

impl Shard {
    fn write_note(&self, dir: &Path, index: usize) -> Result<(), CheckpointError> {
        let place = |(name, slice): &(String, Slice)| {
            let Slice { global, start, shape } = slice.clone();
            (name.clone(), [global, start, shape])
        };
        let note = Note { record: self.record.clone(), tensors: self.tensors.iter().map(place).collect() };
        let text =
            serde_json::to_vec(&note).map_err(|e| CheckpointError::Inconsistent { why: e.to_string() })?;
        let path = dir.join(format!("{index}{NOTE}"));
        fs::write(&path, &text).map_err(|e| CheckpointError::io("write", &path, text.len() as u64, &e))
    }
}

/// Takes in what the processes noted of their shards.
fn notes(dir: &Path) -> Result<Vec<(usize, Shard)>, CheckpointError> {
    let failed = |path: &Path, e: &io::Error| CheckpointError::io("read", path, 0, e);
    let mut shards = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, &e))? {
        let path = entry.map_err(|e| failed(dir, &e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let Some(index) = name.strip_suffix(NOTE).and_then(|index| index.parse().ok()) else { continue };
        let text = fs::read(&path).map_err(|e| failed(&path, &e))?;
        let note: Note = serde_json::from_slice(&text)
            .map_err(|e| CheckpointError::Inconsistent { why: format!("{}: {e}", path.display()) })?;
        fs::remove_file(&path).map_err(|e| failed(&path, &e))?;
        let tensor = |(name, [global, start, shape]): (String, [Vec<usize>; 3])| {
            (name, Slice { global, start, shape })
        };
        shards.push((
            index,
            Shard { record: note.record, tensors: note.tensors.into_iter().map(tensor).collect() },
        ));
    }
    Ok(shards)
}

impl Writer {
    /// Starts a checkpoint of `step` in a run's directory, which is made if it is not there.
    ///
    /// # Errors
    /// The temporary directory cannot be made.
    pub fn begin(run_dir: &Path, step: u64) -> Result<Self, CheckpointError> {
        let parent = directory(run_dir);
        let temporary = parent.join(format!(".step-{step}.partial"));
        // What a killed run left.
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(|e| CheckpointError::io("create", &temporary, 0, &e))?;
        Ok(Self { run_dir: run_dir.into(), step, temporary, shared: false, state: Mutex::default() })
    }

    /// The same, where ranks are processes that write to one disk: each says beside its shard what is in it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_shared(run_dir: &Path, step: u64) -> Result<Self, CheckpointError> {
        let mut writer = Self::begin(run_dir, step)?;
        writer.shared = true;
        Ok(writer)
    }

    /// Another process's end of a checkpoint that was begun with [`begin_shared`](Self::begin_shared).
    pub fn join(run_dir: &Path, step: u64) -> Self {
        let temporary = directory(run_dir).join(format!(".step-{step}.partial"));
        // What the first process has begun is its own to finish or to remove.
        let state = Mutex::new(State { finished: true, ..State::default() });
        Self { run_dir: run_dir.into(), step, temporary, shared: true, state }
    }

    /// Writes one shard, `shard-<index>.safetensors`, and fsyncs it. Threads may write different shards at once; `index` may leave gaps.
    ///
    /// # Errors
    /// [`CheckpointError::DiskFull`] or [`CheckpointError::Io`]; [`CheckpointError::Inconsistent`] if a name or index comes twice, or if values and
    /// slice disagree; [`CheckpointError::GivenUp`] if another shard has failed already.
    pub fn write_shard(&self, index: usize, tensors: &[ShardTensor<'_>]) -> Result<(), CheckpointError> {
        if self.state().failure.is_some() {
            return Err(CheckpointError::GivenUp);
        }
        let written = write(&self.temporary, index, tensors).and_then(|shard| {
            if self.shared {
                shard.write_note(&self.temporary, index)?;
            }
            match self.state().shards.insert(index, shard) {
                None => Ok(()),
                Some(_) => {
                    Err(CheckpointError::Inconsistent { why: format!("shard {index} was written twice") })
                }
            }
        });
        if let Err(error) = &written {
            self.state().failure.get_or_insert_with(|| error.clone());
        }
        written
    }

    /// Writes the manifest, renames the directory to `step-N`, and removes the oldest checkpoints of this run so that `keep` are left, this one among them.
    /// Called once, by one rank, after every shard has been written.
    ///
    /// # Errors
    /// The first failure of any shard; the file system's; [`CheckpointError::Inconsistent`] if a tensor is not covered.
    pub fn finish(&self, meta: Meta, keep: usize) -> Result<PathBuf, CheckpointError> {
        let mut state = self.state();
        if let Some(error) = &state.failure {
            return Err(error.clone());
        }
        if self.shared {
            let noted = notes(&self.temporary)?;
            state.shards.extend(noted);
        }
        let manifest = manifest(&state.shards, self.step, meta)?;
        let text = manifest.seal();
        let path = self.temporary.join(FILE);
        let needed = text.len() as u64;
        File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|e| CheckpointError::io("write", &path, needed, &e))?;
        sync_directory(&self.temporary)?;

        let parent = directory(&self.run_dir);
        let target = parent.join(format!("step-{}", self.step));
        let replaced = parent.join(format!(".step-{}.replaced", self.step));
        remove(&replaced)?;
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|e| CheckpointError::io("rename to", to, needed, &e))
        };
        // A resumed run may save a step again; a directory cannot be renamed over another.
        if target.exists() {
            rename(&target, &replaced)?;
        }
        rename(&self.temporary, &target)?;
        state.finished = true;
        sync_directory(&parent)?;
        remove(&replaced)?;
        self.prune(keep)?;
        Ok(target)
    }

    /// Leaves the `keep` newest checkpoints up to this step. Later ones belong to another future of the run and are not touched.
    fn prune(&self, keep: usize) -> Result<(), CheckpointError> {
        let own: Vec<_> = list(&self.run_dir)?.into_iter().filter(|(step, _)| *step <= self.step).collect();
        let old = own.len().saturating_sub(keep.max(1));
        own[..old].iter().try_for_each(|(_, dir)| remove(dir))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A rank that panicked while it held the lock left no half-made state: each change is one insertion.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.state().finished {
            // Nothing can be done about a failure here; the next save of this step tries again.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Removes a directory and what is in it, if it is there.
pub fn remove(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::io("remove", dir, 0, &error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory's entries durable, where the system can.
fn sync_directory(dir: &Path) -> Result<(), CheckpointError> {
    if cfg!(unix) {
        File::open(dir)
            .and_then(|file| file.sync_all())
            .map_err(|e| CheckpointError::io("sync", dir, 0, &e))?;
    }
    Ok(())
}

/// Writes and fsyncs a safetensors file: the header's length as a u64, the JSON header, the values, all little-endian.
fn write(dir: &Path, index: usize, tensors: &[ShardTensor<'_>]) -> Result<Shard, CheckpointError> {
    let inconsistent = |why: String| CheckpointError::Inconsistent { why };
    let mut sorted: Vec<&ShardTensor<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    let mut infos = Vec::with_capacity(sorted.len());
    let mut end = 0;
    for tensor in &sorted {
        let slice = tensor.slice;
        let place = Box { start: &slice.start, shape: &slice.shape };
        if !place.fits(&slice.global) || slice.len() != tensor.values.len() {
            let (name, values) = (tensor.name, tensor.values.len());
            return Err(inconsistent(format!("{name} has {values} values for {slice:?}")));
        }
        if infos.last().is_some_and(|(name, _)| name == tensor.name) {
            return Err(inconsistent(format!("{} is twice in shard {index}", tensor.name)));
        }
        let start = end;
        end += size_of_val(tensor.values);
        let info = TensorInfo { dtype: Dtype::F32, shape: slice.shape.clone(), data_offsets: (start, end) };
        infos.push((tensor.name.to_string(), info));
    }
    let header = Metadata::new(None, infos).map_err(|e| inconsistent(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| inconsistent(e.to_string()))?;
    // Spaces align the values to 8 bytes, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');

    let name = format!("shard-{index:05}.safetensors");
    let path = dir.join(&name);
    let bytes = (8 + header.len() + end) as u64;
    let hash = stream(&path, &header, &sorted).map_err(|e| CheckpointError::io("write", &path, bytes, &e))?;
    let tensors = sorted.iter().map(|tensor| (tensor.name.to_string(), tensor.slice.clone()));
    Ok(Shard { tensors: tensors.collect(), record: ShardRecord { file: name, bytes, blake3: hash } })
}

/// Writes header and values, hashing what is written.
fn stream(path: &Path, header: &[u8], tensors: &[&ShardTensor<'_>]) -> io::Result<String> {
    let mut file = File::create(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(header)?;
    let mut buffer = Vec::with_capacity(1 << 20);
    for tensor in tensors {
        for values in tensor.values.chunks((1 << 20) / size_of::<f32>()) {
            buffer.clear();
            buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            put(&buffer)?;
        }
    }
    file.sync_all()?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Puts the shards' contents together, and checks that they make up whole tensors.
fn manifest(shards: &BTreeMap<usize, Shard>, step: u64, meta: Meta) -> Result<Manifest, CheckpointError> {
    let mut tensors: BTreeMap<String, TensorRecord> = BTreeMap::new();
    for (position, shard) in shards.values().enumerate() {
        for (name, slice) in &shard.tensors {
            let Slice { global, start, shape } = slice;
            let record = tensors
                .entry(name.clone())
                .or_insert_with(|| TensorRecord { shape: global.clone(), slices: vec![] });
            if record.shape != *global {
                let why = format!("{name} is {:?} in one shard and {global:?} in another", record.shape);
                return Err(CheckpointError::Inconsistent { why });
            }
            record.slices.push(SliceRecord { shard: position, start: start.clone(), shape: shape.clone() });
        }
    }
    for (name, record) in &tensors {
        if !record.is_covered() {
            return Err(CheckpointError::Inconsistent { why: format!("parts of {name} are in no shard") });
        }
    }
    let shards = shards.values().map(|shard| shard.record.clone()).collect();
    Ok(Manifest { version: FORMAT_VERSION, step, meta, shards, tensors })
}

impl TensorRecord {
    /// Whether the slices, each of which fits the shape, make up the whole tensor.
    pub(super) fn is_covered(&self) -> bool {
        let boxes: Vec<Box<'_>> =
            self.slices.iter().map(|slice| Box { start: &slice.start, shape: &slice.shape }).collect();
        boxes.iter().all(|b| b.fits(&self.shape)) && covered(&self.shape, &boxes)
    }
}
