//! The same stretch of training with each rank a process of its own: this program once more, started by `mtnlg parity` itself or by mpirun.
//!
//! State goes in and out as checkpoints in a temporary directory.

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backend::{Backend, Communicator, Group, GroupKind};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{HostState, Launcher, Trained, cut, lr_of, random_samples};
use crate::checkpoint::{Meta, Reader, TokenizerId, Writer};
use crate::config::{BackendChoice, Mode, RunConfig};
use crate::engine::{Rank, StepPlan, TensorState};
use crate::launch::{Job, Process, World};
use crate::run::rank_config;
use crate::{Error, Result, device};

/// What the first process says at the end.
const RESULT: &str = "result.json";

#[derive(Serialize, Deserialize)]
struct Said {
    loss: f32,
    grad_norm: f32,
}

/// `mtnlg parity-rank`: one rank of a stretch.
#[derive(Clone, Debug, Args)]
pub struct RankArgs {
    /// The resolved configuration
    #[arg(long)]
    config: PathBuf,
    /// First step
    #[arg(long)]
    first: u64,
    /// The step behind the last
    #[arg(long)]
    end: u64,
    /// A run directory whose newest checkpoint is the beginning
    #[arg(long)]
    from: Option<PathBuf>,
    /// The run directory for the checkpoint of the end
    #[arg(long)]
    out: PathBuf,
}

/// Trains a stretch with as many processes as the layout has ranks.
///
/// # Errors
/// A process that cannot be started or fails, with what it said.
pub fn train(
    launcher: Launcher,
    config: &RunConfig,
    backend: BackendChoice,
    steps: Range<u64>,
    start: Option<&Trained>,
) -> Result<Trained> {
    let dir = tempfile::tempdir().map_err(|e| Error::other(format!("no temporary directory: {e}")))?;
    let config_file = dir.path().join("config.toml");
    let mut config = config.clone();
    config.run.backend = backend;
    let write = std::fs::write(&config_file, config.to_toml());
    write.map_err(|e| Error::io("write the configuration", &config_file, &e))?;
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    if let Some(start) = start {
        let writer = Writer::begin(&from, steps.start)?;
        writer.write_states(0, &states(&config, &start.state))?;
        writer.finish(meta(&config, start.updates, start.loss_scale), 1)?;
    }
    let program = std::env::current_exe().map_err(|e| Error::other(format!("where is this program? {e}")))?;
    let mut args = vec!["parity-rank".to_owned(), "--config".to_owned(), config_file.display().to_string()];
    args.extend(["--first".to_owned(), steps.start.to_string(), "--end".to_owned(), steps.end.to_string()]);
    args.extend(["--out".to_owned(), out.display().to_string()]);
    if start.is_some() {
        args.extend(["--from".to_owned(), from.display().to_string()]);
    }
    let ranks = config.layout().world_size();
    let mut commands = match launcher {
        Launcher::Threads | Launcher::Processes => alone(&program, ranks)?,
        Launcher::Mpi => {
            let mut command = Command::new("mpirun");
            command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]).arg(&program);
            vec![command]
        }
    };
    let spawn =
        |command: &mut Command| command.args(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let children: Vec<_> = commands.iter_mut().map(spawn).collect::<std::io::Result<_>>().map_err(|e| {
        Error::other(format!("a rank cannot be started: {e}")).value(program.display().to_string())
    })?;
    for child in children {
        let ended = child.wait_with_output().map_err(|e| Error::other(format!("a rank was lost: {e}")))?;
        if !ended.status.success() {
            return Err(Error::other(format!(
                "a rank failed: {}",
                String::from_utf8_lossy(&ended.stderr).trim()
            )));
        }
    }
    let said = out.join(RESULT);
    let text = std::fs::read(&said).map_err(|e| Error::io("read the result", &said, &e))?;
    let Said { loss, grad_norm } = serde_json::from_slice(&text).map_err(|e| Error::other(e.to_string()))?;
    let (state, meta) = load(&config, &out)?;
    Ok(Trained { loss, grad_norm, state, updates: meta.updates, loss_scale: meta.loss_scale })
}

/// One command a rank, with the variables that torchrun would set.
fn alone(program: &Path, ranks: usize) -> Result<Vec<Command>> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.map_err(|e| Error::other(format!("no free port: {e}")))?.port();
    let command = |rank: usize| {
        let mut command = Command::new(program);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command
    };
    Ok((0..ranks).map(command).collect())
}

impl RankArgs {
    /// Does it.
    ///
    /// # Errors
    /// Those of the ranks.
    pub fn run(&self) -> Result<()> {
        let config = RunConfig::load(&self.config)?;
        let (device, _) = device::choose(config.run.backend)?;
        match Process::join(&config.to_toml())? {
            Some(process) => {
                let invariant = config.numerics.mode == Mode::Invariant;
                process.launch(&device, invariant, One { args: self, config: &config })
            }
            None => crate::launch::launch(&device, 1, One { args: self, config: &config }),
        }
    }
}

/// The job of one rank.
struct One<'a> {
    args: &'a RankArgs,
    config: &'a RunConfig,
}

impl Job for One<'_> {
    type Output = ();

    fn run<B: Backend>(self, world: World<B>) -> Result<()> {
        let results = world.run(|backend, communicator| self.train(backend, communicator));
        results.map(drop)
    }
}

impl One<'_> {
    fn train<B: Backend>(&self, backend: &B, communicator: &dyn Communicator<B::Buffer>) -> Result<()> {
        let (args, config) = (self.args, self.config);
        let rank_config = rank_config(config);
        let samples = random_samples(config.train.seed, config.model.vocab, config.train.seq_len);
        let mut rank = Rank::new(backend, communicator, rank_config)?;
        if let Some(from) = &args.from {
            let (state, meta) = load(config, from)?;
            if let (Some(scaler), Some(state)) = (rank.scaler(), meta.loss_scale) {
                scaler.restore(state);
            }
            rank.import::<Error>(meta.updates, |name, slice| {
                Ok(state[name].each_ref().map(|whole| cut(whole, slice)))
            })?;
        }
        let mut said = Said { loss: f32::NAN, grad_norm: f32::NAN };
        for step in args.first..args.end {
            let global_batch = config.train.global_batch;
            let (first_sample, lr) = (step * global_batch as u64, lr_of(config.train.lr as f32, step));
            let stats =
                rank.train_step(&samples, StepPlan { first_sample, global_batch, lr, stop: false })?;
            said = Said { loss: stats.loss, grad_norm: stats.grad_norm };
        }
        let world = Group::new(GroupKind::World, config.layout().world_group());
        let first = communicator.rank() == 0;
        let begun = if first { Some(Writer::begin_shared(&args.out, args.end)?) } else { None };
        communicator.barrier(&world)?;
        let writer = begun.unwrap_or_else(|| Writer::join(&args.out, args.end));
        writer.write_states(communicator.rank(), &rank.export()?)?;
        communicator.barrier(&world)?;
        if first {
            writer.finish(meta(config, rank.steps(), rank.scaler().map(|scaler| scaler.state())), 1)?;
            let path = args.out.join(RESULT);
            let text = serde_json::to_vec(&said).map_err(|e| Error::other(e.to_string()))?;
            std::fs::write(&path, text).map_err(|e| Error::io("write the result", &path, &e))?;
        }
        Ok(communicator.barrier(&world)?)
    }
}

/// A whole state as one rank would export it.
fn states(config: &RunConfig, state: &HostState) -> Vec<TensorState> {
    let parameters = model::Shard::whole(&config.model).parameters(&config.model);
    let of = |p: model::Parameter| {
        let [value, m, v] = state.get(&p.name)?.clone();
        Some(TensorState { name: p.name, slice: p.slice, value, m, v })
    };
    parameters.into_iter().filter_map(of).collect()
}

/// The newest checkpoint of a run directory, whole.
fn load(config: &RunConfig, dir: &Path) -> Result<(HostState, Meta)> {
    let (reader, _) = Reader::newest_good(dir)?;
    let parameters = model::Shard::whole(&config.model).parameters(&config.model);
    let read =
        |p: model::Parameter| -> Result<_> { Ok((p.name.clone(), reader.read_state(&p.name, &p.slice)?)) };
    let state = parameters.into_iter().map(read).collect::<Result<_>>()?;
    Ok((state, reader.meta().clone()))
}

/// A checkpoint of random tokens has no text to speak of.
fn meta(config: &RunConfig, updates: u64, loss_scale: Option<(f32, u32, u32)>) -> Meta {
    Meta {
        model: config.model.clone(),
        samples_consumed: 0,
        updates,
        scheduled_tokens: 0,
        loss_scale,
        seed: config.train.seed,
        tokenizer: TokenizerId { name: "random".to_owned(), blake3: String::new(), tokens: 0 },
        data: Vec::new(),
        layout: config.layout().to_string(),
    }
}
