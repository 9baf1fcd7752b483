//! A file of `torch.save` (PyTorch 1.6 and later): a ZIP archive with a pickle, `data.pkl`, and each tensor's storage as it lies in memory, `data/0`, `data/1`, ….
//!
//! A tensor in the pickle is a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset, extents and strides.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use half::{bf16, f16};

use super::pickle::{Id, Pickle, Value};
use super::stored_zip::StoredZip;
use crate::{Error, Result};

/// The longest pickle that is read. That of a checkpoint of a thousand layers with its optimizer has some MB.
const PICKLE_LIMIT: u64 = 32 << 20;
/// The most axes of a tensor.
const AXES: usize = 8;
/// How files of PyTorch before 1.6 begin: a magic number, pickled.
const OLD: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    fn of(class: &str) -> Option<Self> {
        Some(match class {
            "torch.FloatStorage" => Self::F32,
            "torch.HalfStorage" => Self::F16,
            "torch.BFloat16Storage" => Self::Bf16,
            _ => return None,
        })
    }

    /// Bytes of one.
    pub fn size(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// Where a tensor lies, in its storage and known to be inside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The storage's name in the archive.
    storage: String,
    /// Type of its elements.
    pub element: Element,
    /// Its first element in the storage.
    offset: u64,
    /// Extents.
    pub shape: Vec<usize>,
    /// Steps in the storage, in elements.
    strides: Vec<u64>,
    /// Elements from the first to the last in the storage, both included; 0 if there are none.
    span: u64,
}

/// An opened file.
#[derive(Debug)]
pub struct TorchFile {
    zip: StoredZip,
    /// What all names in the archive begin with.
    prefix: String,
    /// What it holds.
    pub pickle: Pickle,
}

impl TorchFile {
    /// Opens a file and reads its pickle.
    ///
    /// # Errors
    /// It is cut short or damaged, or no file of `torch.save`, or of a PyTorch before 1.6, or from a big-endian machine.
    pub fn open(path: &Path) -> Result<Self> {
        let mut start = [0; OLD.len()];
        let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
        if read.map_err(|e| Error::io("read", path, &e))? == OLD.len() && start == OLD {
            return Err(Error::user("it is in the format of PyTorch before 1.6")
                .at(path.display().to_string())
                .remedy("load it with torch.load and save it again with torch.save"));
        }
        let zip = StoredZip::open(path)?;
        let prefix = zip
            .names()
            .filter_map(|name| name.strip_suffix("data.pkl"))
            .find(|prefix| prefix.find('/').is_some_and(|at| at + 1 == prefix.len()))
            .ok_or_else(|| zip.damaged("it has no data.pkl", 0))?
            .to_owned();
        let order = format!("{prefix}byteorder");
        if zip.len_of(&order).is_some() && zip.read(&order, 16)? != b"little" {
            return Err(Error::user("it is from a big-endian machine")
                .at(path.display().to_string())
                .remedy("load it with torch.load on a little-endian one and save it again"));
        }
        let name = format!("{prefix}data.pkl");
        let bytes = zip.read(&name, PICKLE_LIMIT)?;
        let start = zip.start_of(&name)?;
        let pickle = Pickle::parse(&bytes).map_err(|broken| {
            zip.damaged(format_args!("data.pkl is no pickle: {}", broken.why), start + broken.at as u64)
        })?;
        Ok(Self { zip, prefix, pickle })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.zip.path()
    }

    /// The tensor that a value is, if it is one; parameters are tensors.
    ///
    /// # Errors
    /// `name` is of a type that is not read, or does not lie in its storage.
    pub fn tensor(&self, name: &str, id: Id) -> Result<Option<Tensor>> {
        match self.pickle.call(id) {
            Some(("torch._utils._rebuild_parameter", [data, ..])) => match self.pickle.call(*data) {
                Some(("torch._utils._rebuild_tensor_v2", arguments)) => self.place(name, arguments).map(Some),
                _ => Err(self.refused(name, "is a parameter of no tensor")),
            },
            Some(("torch._utils._rebuild_tensor_v2", arguments)) => self.place(name, arguments).map(Some),
            _ => Ok(None),
        }
    }

    fn refused(&self, name: &str, why: &str) -> Error {
        Error::user(format!("{name} {why}"))
            .at(self.path().display().to_string())
            .remedy("copy the file again, or save it again")
    }

    fn place(&self, name: &str, arguments: &[Id]) -> Result<Tensor> {
        let pickle = &self.pickle;
        let broken = || self.refused(name, "is no tensor as torch.save writes it");
        let natural = |id: Id| match pickle.get(id) {
            Value::Int(value) => u64::try_from(*value).map_err(|_| broken()),
            _ => Err(broken()),
        };
        let all = |id: Id| match pickle.get(id) {
            Value::Tuple(list) if list.len() <= AXES => {
                list.iter().map(|id| natural(*id)).collect::<Result<Vec<u64>>>()
            }
            _ => Err(broken()),
        };
        let [storage, offset, shape, strides, ..] = arguments else { return Err(broken()) };
        let Value::Persistent(storage) = pickle.get(*storage) else { return Err(broken()) };
        let Value::Tuple(storage) = pickle.get(*storage) else { return Err(broken()) };
        let [kind, class, key, _device, elements, ..] = storage[..] else { return Err(broken()) };
        let (Some("storage"), Some(class), Some(key)) =
            (pickle.text(kind), pickle.global(class), pickle.text(key))
        else {
            return Err(broken());
        };
        let element = Element::of(class).ok_or_else(|| {
            Error::user(format!("{name} is of {class}"))
                .at(self.path().display().to_string())
                .remedy("save the weights as float32, float16 or bfloat16")
        })?;
        let (offset, elements) = (natural(*offset)?, natural(elements)?);
        let (shape, strides) = (all(*shape)?, all(*strides)?);
        let storage = format!("{}data/{key}", self.prefix);
        let bytes =
            self.zip.len_of(&storage).ok_or_else(|| self.refused(name, "has no storage in the file"))?;
        if elements.checked_mul(element.size()) != Some(bytes) || shape.len() != strides.len() {
            return Err(
                self.refused(name, &format!("has a storage of {bytes} bytes for {elements} elements"))
            );
        }
        let count = shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent));
        let last = shape.iter().zip(&strides).try_fold(0_u64, |last, (extent, stride)| {
            last.checked_add(extent.saturating_sub(1).checked_mul(*stride)?)
        });
        let span = if count == Some(0) { Some(0) } else { last.and_then(|last| last.checked_add(1)) };
        let end = span.and_then(|span| offset.checked_add(span));
        match (count, span, end) {
            (Some(count), Some(span), Some(end)) if count <= elements && end <= elements => {
                // Both fit a file, and so what can be addressed.
                let shape = shape.into_iter().map(|extent| extent as usize).collect();
                Ok(Tensor { storage, element, offset, shape, strides, span })
            }
            _ => Err(self.refused(
                name,
                &format!("has shape {shape:?} and strides {strides:?}, outside of its storage"),
            )),
        }
    }

    /// Holds the storages of tensors against their checksums.
    ///
    /// # Errors
    /// One is not what it was when it was written.
    pub fn check<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<()> {
        let storages: BTreeSet<&str> = tensors.map(|tensor| tensor.storage.as_str()).collect();
        storages.into_iter().try_for_each(|storage| self.zip.check(storage))
    }

    /// A tensor's values, row-major.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let size = tensor.element.size();
        let start = self.zip.start_of(&tensor.storage)? + tensor.offset * size;
        let bytes = self.zip.bytes(start, tensor.span * size)?;
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        let values: Vec<f32> = match tensor.element {
            Element::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Element::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Element::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        };
        if values.is_empty() {
            return Ok(values);
        }
        let (mut step, mut packed) = (1, true);
        for (extent, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
            packed &= *extent == 1 || *stride == step;
            step *= *extent as u64;
        }
        if packed {
            return Ok(values);
        }
        let place = |mut index: u64| {
            tensor.shape.iter().zip(&tensor.strides).rev().fold(0, |place, (extent, stride)| {
                let along = index % *extent as u64;
                index /= *extent as u64;
                place + along * stride
            })
        };
        Ok((0..step).map(|index| values[place(index) as usize]).collect())
    }
}
