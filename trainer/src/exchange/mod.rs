//! `mtnlg checkpoint`: what is in a checkpoint, and models from and to other programs.
//!
//! A checkpoint is named by the directory of a run, whose newest good one is meant, or by its own. What is imported becomes a run directory that has not made a
//! step: `config.toml`, `checkpoints/step-0`, and `tokenizer.json` unless the tokenizer is GPT-2's.

pub mod gpt2;

mod export;
mod gpt2_weights;
mod import;
mod inspect;
mod megatron;
mod pickle;
mod safetensors_dir;
mod stored_zip;
mod torch_file;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use data::tokenizer::Tokenizer;

use crate::checkpoint::Reader;
use crate::run::TOKENIZER_FILE;
use crate::{Error, Result, config};

/// `mtnlg checkpoint`.
#[derive(Clone, Debug, Args)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    what: What,
}

/// What `mtnlg checkpoint` does.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Say what a checkpoint is of, and list its tensors
    Inspect {
        /// A run, or one of its checkpoints; or a checkpoint of Megatron-LM's
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every hash, and every value for being a finite number
    Verify {
        /// A run, or one of its checkpoints
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: PathBuf,
    },
    /// Compare the tensors of two checkpoints; exit code 1 if one differs
    Diff {
        /// A run, or one of its checkpoints
        #[arg(value_name = "CHECKPOINT")]
        first: PathBuf,
        /// Another
        #[arg(value_name = "OTHER")]
        second: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a run of a Hugging Face GPT-2 (config.json, model.safetensors or several with their index, tokenizer.json) or of a GPT of Megatron-LM's
    /// (latest_checkpointed_iteration.txt and mp_rank_XX/model_optim_rng.pt)
    Import {
        /// The directory with these files, or that of one iteration
        #[arg(value_name = "SOURCE")]
        source: PathBuf,
        /// Where the run goes
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// gpt2, or a tokenizer.json [default: the source's tokenizer.json, or gpt2 where its 50,257 tokens fit the vocabulary]
        #[arg(long, value_name = "gpt2|FILE")]
        tokenizer: Option<config::Tokenizer>,
    },
    /// Write a checkpoint as a Hugging Face GPT-2, which transformers loads
    Export {
        /// A run, or one of its checkpoints
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: PathBuf,
        /// Where the files go
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// Type of the weights
        #[arg(long, value_name = "TYPE", default_value = "f32")]
        dtype: Width,
    },
}

/// Type of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Width {
    F32,
    Bf16,
    F16,
}

impl CheckpointArgs {
    /// Does it; returns what is to be printed.
    ///
    /// # Errors
    /// The user's mistakes; for `diff` also that something differs.
    pub fn run(&self) -> Result<String> {
        match &self.what {
            What::Inspect { checkpoint, json } => match megatron::find(checkpoint)? {
                Some(theirs) => theirs.inspect(*json),
                None => inspect::inspect(&Found::at(checkpoint)?, *json),
            },
            What::Verify { checkpoint } => inspect::verify(&Found::at(checkpoint)?),
            What::Diff { first, second, json } => {
                inspect::diff(&Found::at(first)?.reader, &Found::at(second)?.reader, *json)
            }
            What::Import { source, output, tokenizer } => import::import(source, output, tokenizer.as_ref()),
            What::Export { checkpoint, output, dtype } => {
                export::export(&Found::at(checkpoint)?, output, *dtype)
            }
        }
    }
}

/// A checkpoint, and the run directory that it lies in.
pub struct Found {
    /// The checkpoint, found whole.
    pub reader: Reader,
    /// The run directory.
    pub run: PathBuf,
}

impl Found {
    /// The newest good checkpoint of a run, or the one that has this directory.
    ///
    /// # Errors
    /// None there; a damaged one.
    pub fn at(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::user("there is no such directory")
                .at(path.display().to_string())
                .remedy("give the directory of a run, or of one of its checkpoints"));
        }
        if path.join("manifest.json").is_file() {
            let reader = Reader::open(path)?;
            let whole = path.canonicalize().map_err(|e| Error::io("find", path, &e))?;
            let run = whole.parent().and_then(Path::parent).unwrap_or(&whole).to_path_buf();
            return Ok(Self { reader, run });
        }
        let (reader, _) = Reader::newest_good(path)?;
        Ok(Self { reader, run: path.to_path_buf() })
    }

    /// The tokenizer that the model was trained with.
    ///
    /// # Errors
    /// It is not beside the checkpoint; it is another one.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let id = &self.reader.meta().tokenizer;
        if id.name == "gpt2" {
            return Ok(Tokenizer::gpt2());
        }
        let path = self.run.join(TOKENIZER_FILE);
        let json = std::fs::read(&path).map_err(|e| Error::io("read the model's tokenizer", &path, &e))?;
        if blake3::hash(&json).to_hex().as_str() != id.blake3 {
            return Err(Error::user(format!(
                "it is not the tokenizer {} that the checkpoint was made with",
                id.name
            ))
            .at(path.display().to_string())
            .remedy("put the run's own tokenizer.json there"));
        }
        Ok(Tokenizer::from_json(&json, &path.display().to_string())?)
    }
}

/// Makes a directory by filling a hidden one beside it and renaming that, so that it is whole or not there.
fn whole_directory(output: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let taken = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    if taken || output.is_file() {
        return Err(Error::user("the output is there already and not empty")
            .at(output.display().to_string())
            .remedy("choose another --output, or remove it"));
    }
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, &e))?;
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(parent)
        .map_err(|e| Error::io("create", parent, &e))?;
    fill(partial.path())?;
    if output.is_dir() {
        std::fs::remove_dir(output).map_err(|e| Error::io("replace", output, &e))?;
    }
    std::fs::rename(partial.path(), output).map_err(|e| Error::io("create", output, &e))?;
    // What was renamed is no longer there to be removed.
    let _ = partial.keep();
    Ok(())
}
