//! A directory of safetensors files as Hugging Face lays it out: `model.safetensors`, or several and `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::{Error, Result};

/// Its one file.
pub const FILE: &str = "model.safetensors";
/// Where the tensors of several files are listed.
const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: usize,
    offset: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Tensors by name, read one at a time.
#[derive(Debug)]
pub struct SafetensorsDir {
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Place>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::user(format!("it is no whole safetensors file: {why}"))
        .at(path.display().to_string())
        .remedy("fetch the file again")
}

impl SafetensorsDir {
    /// Reads the headers of the directory's files.
    ///
    /// # Errors
    /// None there; a header that does not fit its file; a name in the index that leads elsewhere.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join(INDEX);
        let mut names = vec![FILE.to_owned()];
        if !dir.join(FILE).is_file() && index.is_file() {
            let text = std::fs::read(&index).map_err(|e| Error::io("read", &index, &e))?;
            let listed: Index = serde_json::from_slice(&text).map_err(|e| damaged(&index, e))?;
            names = listed.weight_map.into_values().collect();
            names.sort();
            names.dedup();
            if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
                return Err(damaged(&index, format!("{name} is not the name of a file")));
            }
        }
        let mut all = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            all.add(dir.join(name))?;
        }
        Ok(all)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&path, "it is cut short"),
            _ => Error::io("read", &path, &e),
        };
        let mut file = File::open(&path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        if length > bytes.saturating_sub(8) {
            return Err(damaged(&path, "its header is longer than itself"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(&path, e))?;
        if 8 + length + header.data_len() as u64 != bytes {
            return Err(damaged(&path, "its header does not fit it"));
        }
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                file: self.files.len(),
                offset: 8 + length + start as u64,
                bytes: end - start,
                dtype: info.dtype,
                shape: info.shape.clone(),
            };
            self.tensors.insert(name, place);
        }
        self.files.push(path);
        Ok(())
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's extents, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// A tensor's values, row-major, from f32, f16 or bf16.
    ///
    /// # Errors
    /// No such tensor, another shape or type; the file system's.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let dir = || {
            self.files.first().and_then(|file| file.parent()).unwrap_or(Path::new(".")).display().to_string()
        };
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::user(format!("there is no tensor {name}")).at(dir()));
        };
        if place.shape != shape {
            return Err(Error::user(format!(
                "{name} has shape {:?}, and the model's sizes make it {shape:?}",
                place.shape
            ))
            .at(dir())
            .remedy("check config.json against the weights"));
        }
        let path = &self.files[place.file];
        let mut bytes = vec![0; place.bytes];
        File::open(path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut bytes))
            })
            .map_err(|e| Error::io("read", path, &e))?;
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        Ok(match place.dtype {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => {
                return Err(Error::user(format!("{name} is of type {other:?}"))
                    .at(path.display().to_string())
                    .remedy("save the model in F32, F16 or BF16"));
            }
        })
    }
}
