//! The files of all ranks, and where in them each tensor is.
//!
//! A pipeline stage numbers its layers from 0. The model's layers are those of the first chunk of every stage, then of the second (interleaved stages have
//! several, `model0`, `model1`, …), as many as each has.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::pickle::{Id, Value};
use super::super::torch_file::{Element, Tensor, TorchFile};
use super::args::Args;
use super::folder::Folder;
use super::names::{LAYERS, normal};
use crate::{Error, Result};

/// How deep a model's dicts are nested at most.
const DEPTH: usize = 16;
/// How long a tensor's name is at most.
const NAME: usize = 200;

/// A tensor rank's part of a tensor.
#[derive(Clone, Debug)]
pub struct Part {
    /// The file, of [`Shards`].
    file: usize,
    /// Where in it.
    pub tensor: Tensor,
}

/// All files, and all tensors by their normal names.
#[derive(Debug)]
pub struct Shards {
    files: Vec<TorchFile>,
    /// A part a tensor rank, in their order.
    tensors: BTreeMap<String, Vec<Part>>,
    /// What all files agree on.
    pub args: Args,
    /// The order of queries, keys and values.
    pub version: f64,
    /// Steps that were made; none in a release.
    pub iteration: Option<i64>,
}

/// What one file says of the model.
struct Rank {
    file: TorchFile,
    args: Args,
    version: f64,
    iteration: Option<i64>,
    /// Its models, one a chunk.
    chunks: Vec<Id>,
}

impl Rank {
    fn open(path: &Path) -> Result<Self> {
        let file = TorchFile::open(path)?;
        let error = |what: String| {
            Error::user(what)
                .at(path.display().to_string())
                .remedy("give a checkpoint of Megatron-LM's GPT in its torch format")
        };
        let pickle = &file.pickle;
        let top = pickle.items(pickle.root());
        let top =
            top.ok_or_else(|| error(format!("it holds {}, not a dict", pickle.describe(pickle.root()))))?;
        let get = |name: &str| pickle.find(top, name);
        let version = match get("checkpoint_version").map(|id| pickle.get(id)) {
            None => 0.0,
            Some(Value::Int(version)) => *version as f64,
            Some(Value::Float(version)) => *version,
            Some(_) => f64::NAN,
        };
        if ![0.0, 1.0, 2.0, 3.0].contains(&version) {
            return Err(error(format!("checkpoint_version {version} is not one of 0, 1, 2 and 3")));
        }
        let iteration = match get("iteration").map(|id| pickle.get(id)) {
            Some(Value::Int(iteration)) if *iteration > 0 => Some(*iteration),
            _ => None,
        };
        let chunks: Vec<Id> = match get("model") {
            Some(model) => vec![model],
            None => (0..).map_while(|chunk| get(&format!("model{chunk}"))).collect(),
        };
        if chunks.is_empty() {
            return Err(error("it has no model".into()));
        }
        let args = Args::read(&file, top)?;
        Ok(Self { args, version, iteration, chunks, file })
    }
}

impl Shards {
    /// Opens the files of all ranks and finds their tensors.
    ///
    /// # Errors
    /// A file is missing, damaged, of no GPT of ours, or of another model or step than the first.
    pub fn open(folder: &Folder) -> Result<Self> {
        let first = Rank::open(&folder.file(0, 0))?;
        let (tensor, stages) = (first.args.tensor, first.args.pipeline);
        folder.check(tensor, stages)?;
        let (args, version, iteration) = (first.args.clone(), first.version, first.iteration);
        let chunks = first.chunks.len();
        let mut ranks = vec![first];
        for (stage, rank) in (0..stages).flat_map(|stage| (0..tensor).map(move |rank| (stage, rank))).skip(1)
        {
            let other = Rank::open(&folder.file(rank, stage))?;
            let number = |iteration: Option<i64>| iteration.unwrap_or(0).to_string();
            let difference = args
                .difference(&other.args)
                .or_else(|| other_than("checkpoint_version", version.to_string(), other.version.to_string()))
                .or_else(|| other_than("iteration", number(iteration), number(other.iteration)))
                .or_else(|| {
                    other_than("number of models", chunks.to_string(), other.chunks.len().to_string())
                });
            if let Some((name, ours, theirs)) = difference {
                return Err(Error::user(format!(
                    "its {name} is {theirs}, and that of the first rank is {ours}"
                ))
                .at(other.file.path().display().to_string())
                .remedy("check that all files are of one checkpoint"));
            }
            ranks.push(other);
        }
        let mut tensors: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        let mut layers = 0;
        for chunk in 0..chunks {
            for stage in 0..stages {
                let (before, mut here) = (layers, 0);
                for (index, rank) in ranks.iter().enumerate().skip(stage * tensor).take(tensor) {
                    let found = found_in(&rank.file, rank.chunks[chunk])?;
                    if index == stage * tensor {
                        here = layers_of(&found, args.layers);
                        layers += here;
                    }
                    for (name, tensor) in found {
                        let part = Part { file: index, tensor };
                        tensors.entry(numbered(name, before, here)).or_default().push(part);
                    }
                }
            }
        }
        if layers != args.layers {
            return Err(Error::user(format!(
                "the files have {layers} layers, and num_layers is {}",
                args.layers
            ))
            .at(folder.dir.display().to_string())
            .remedy("check that all files are of one checkpoint"));
        }
        let files = ranks.into_iter().map(|rank| rank.file).collect();
        Ok(Self { files, tensors, args, version, iteration })
    }

    /// Normal names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that normal name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's parts, one a tensor rank.
    ///
    /// # Errors
    /// A rank has none of that name, or has two.
    pub fn parts(&self, name: &str) -> Result<&[Part]> {
        let parts = self.tensors.get(name).map_or(&[][..], Vec::as_slice);
        let ranks = (0..self.args.tensor).map(Some);
        let theirs = parts.iter().map(|part| Some(part.file % self.args.tensor));
        if theirs.eq(ranks) {
            return Ok(parts);
        }
        let files: Vec<_> = parts.iter().map(|part| self.path(part).display().to_string()).collect();
        let error = match files.is_empty() {
            true => Error::user(format!("there is no tensor {name}"))
                .at(self.files[0].path().display().to_string()),
            false => Error::user(format!(
                "{name} must be in the file of each tensor rank once, and is in {}",
                files.join(", ")
            )),
        };
        Err(error.remedy("check that all files are of one checkpoint, and that it is one of a GPT"))
    }

    /// The file that a part is in.
    pub fn path(&self, part: &Part) -> &Path {
        self.files[part.file].path()
    }

    /// A part's values.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&self, part: &Part) -> Result<Vec<f32>> {
        self.files[part.file].read(&part.tensor)
    }

    /// Types of the tensors.
    pub fn elements(&self) -> impl Iterator<Item = Element> {
        self.tensors.values().flatten().map(|part| part.tensor.element)
    }

    /// Holds all weights against their files' checksums.
    ///
    /// # Errors
    /// Some are not what they were when they were written.
    pub fn check(&self) -> Result<()> {
        for (index, file) in self.files.iter().enumerate() {
            let here = self.tensors.values().flatten().filter(|part| part.file == index);
            file.check(here.map(|part| &part.tensor))?;
        }
        Ok(())
    }
}

fn other_than(name: &'static str, ours: String, theirs: String) -> Option<(&'static str, String, String)> {
    (ours != theirs).then_some((name, ours, theirs))
}

/// All tensors below a model's dict, by their normal names within the stage.
fn found_in(file: &TorchFile, model: Id) -> Result<Vec<(String, Tensor)>> {
    let pickle = &file.pickle;
    let refused = |why: &str| {
        Error::user(format!("the model {why}"))
            .at(file.path().display().to_string())
            .remedy("give a checkpoint of Megatron-LM's GPT in its torch format")
    };
    let Some(items) = pickle.items(model) else { return Err(refused("is no dict")) };
    let (mut found, mut steps) = (Vec::new(), 0);
    // The dicts that are being read, each with the length of the name that they have.
    let (mut name, mut open) = (String::new(), vec![(items.iter(), 0)]);
    while let Some((items, base)) = open.last_mut() {
        name.truncate(*base);
        let Some((key, value)) = items.next() else {
            open.pop();
            continue;
        };
        let Some(key) = pickle.text(*key) else { continue };
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(key);
        steps += 1;
        // A tree has no more places than values, and a tensor is made of more than eight.
        if name.len() > NAME || open.len() > DEPTH || steps > pickle.len() || found.len() > pickle.len() / 8 {
            return Err(refused("is nested without end"));
        }
        if let Some(items) = pickle.items(*value) {
            open.push((items.iter(), name.len()));
        } else if !name.ends_with("._extra_state")
            && let Some(tensor) = file.tensor(&name, *value)?
        {
            found.push((normal(&name), tensor));
        }
    }
    Ok(found)
}

/// A layer's number in its stage, and what is behind it in the name.
fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// How many layers a stage has, of at most `limit`.
fn layers_of(found: &[(String, Tensor)], limit: usize) -> usize {
    let numbers = found.iter().filter_map(|(name, _)| layer_of(name));
    numbers.map(|(number, _)| number.min(limit) + 1).max().unwrap_or(0)
}

/// The name with the layer's number in the model, where `before` come first and the stage has `here`.
fn numbered(name: String, before: usize, here: usize) -> String {
    match layer_of(&name) {
        Some((number, rest)) if number < here => format!("{LAYERS}{}.{rest}", before + number),
        // One more than the first tensor rank has: it stays a name that nothing has.
        Some((number, rest)) => format!("{LAYERS}{number} of a stage of {here}.{rest}"),
        None => name,
    }
}
