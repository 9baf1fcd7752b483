//! The loop of one rank: step, validate, save, until the last step or a wish to stop. The same on every rank; the first one keeps the books.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::local::LocalCommunicator;
use backend::{Backend, Communicator, Group, GroupKind};

use crate::checkpoint::{Meta, Reader, ShardTensor, Writer, adam_m, adam_v};
use crate::config::RunConfig;
use crate::engine::{AdamWSettings, Rank, RankConfig, Samples, StepPlan};
use crate::metrics::StepMetrics;
use crate::{Error, Result};

/// What the first rank tells of each step.
pub trait Observer: Send {
    /// A step is done, validated if it was due.
    ///
    /// # Errors
    /// The step cannot be recorded: the run stops.
    fn step(&mut self, metrics: &StepMetrics) -> Result<()>;

    /// A checkpoint is in its place.
    fn saved(&mut self, step: u64, path: &Path);
}

/// All that the ranks of a session share.
pub struct Session<'a> {
    /// The run.
    pub config: &'a RunConfig,
    /// What it is trained on.
    pub train: &'a dyn Samples,
    /// What it is validated on.
    pub valid: &'a dyn Samples,
    /// Where to go on, if not at the beginning.
    pub resume: Option<&'a Reader>,
    /// What checkpoints say of the run; the samples consumed are filled in.
    pub meta: Meta,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Who is told.
    pub observer: &'a Mutex<dyn Observer + 'a>,
    /// The checkpoint being written.
    pub writer: Mutex<Option<Arc<Writer>>>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Optimizer steps done, those before the session included.
    pub step: u64,
    /// The last validation's loss, in nats a token.
    pub valid_loss: f32,
    /// The backend and its device.
    pub backend: String,
}

/// What a rank must know of this run.
pub fn rank_config(config: &RunConfig) -> RankConfig {
    let train = &config.train;
    RankConfig {
        model: config.model.clone(),
        layout: config.layout(),
        execution: config.execution(),
        seq_len: train.seq_len,
        micro_batch: train.micro_batch,
        global_batch: train.global_batch,
        optimizer: AdamWSettings {
            beta1: train.beta1 as f32,
            beta2: train.beta2 as f32,
            eps: train.eps as f32,
            weight_decay: train.weight_decay as f32,
            clip: train.clip as f32,
        },
        seed: train.seed,
    }
}

impl Session<'_> {
    /// Runs one rank to the end of the session.
    ///
    /// # Errors
    /// Those of the ranks, the data and the disk; a loss that is not finite.
    pub fn rank<B: Backend>(&self, communicator: &LocalCommunicator<B>) -> Result<Ended> {
        let (config, train) = (self.config, &self.config.train);
        let backend = communicator.backend();
        let mut rank = Rank::new(backend, communicator, rank_config(config))?;
        if let Some(reader) = self.resume {
            rank.import(reader.step(), |name, slice| -> Result<_> {
                let [m, v] = [adam_m(name), adam_v(name)];
                Ok([reader.read(name, slice)?, reader.read(&m, slice)?, reader.read(&v, slice)?])
            })?;
        }
        let first_rank = communicator.rank() == 0;
        let schedule = config.learning_rate();
        let mut valid_loss = None;
        while rank.steps() < train.steps {
            let begin = Instant::now();
            let step = rank.steps() + 1;
            let lr = schedule.at(step);
            let wish = first_rank && self.stop.load(Ordering::Relaxed);
            let first_sample = rank.steps() * train.global_batch as u64;
            let plan = StepPlan { first_sample, global_batch: train.global_batch, lr: lr as f32, stop: wish };
            let stats = rank.train_step(self.train, plan)?;
            let tokens_per_second = config.tokens_per_step() as f64 / begin.elapsed().as_secs_f64();
            if !(stats.loss.is_finite() && stats.grad_norm.is_finite()) {
                return Err(diverged(step, stats.loss, stats.grad_norm, lr));
            }
            let last = step == train.steps || stats.stop;
            let due = |every: u64| last || (every > 0 && step.is_multiple_of(every));
            let validated = match due(train.valid_every) {
                true => Some(rank.validate(self.valid, 0, train.valid_batches)?),
                false => None,
            };
            valid_loss = validated.or(valid_loss);
            if first_rank {
                self.observer.lock().unwrap_or_else(PoisonError::into_inner).step(&StepMetrics {
                    step,
                    loss: stats.loss.into(),
                    lr,
                    grad_norm: stats.grad_norm.into(),
                    tokens_per_second,
                    valid_loss: validated.map(f64::from),
                })?;
            }
            if due(train.checkpoint_every) {
                self.save(&rank, communicator)?;
            }
            if last {
                break;
            }
        }
        // A run that was done already is still told how good it is.
        let valid_loss = match valid_loss {
            Some(loss) => loss,
            None => rank.validate(self.valid, 0, train.valid_batches)?,
        };
        let info = backend.info();
        let backend = format!("{} ({})", info.backend, info.device);
        Ok(Ended { step: rank.steps(), valid_loss, backend })
    }

    /// Writes a checkpoint together with the other ranks.
    fn save<B: Backend>(&self, rank: &Rank<'_, B>, communicator: &LocalCommunicator<B>) -> Result<()> {
        let world = Group::new(GroupKind::World, self.config.layout().world_group());
        let shared = || self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let first_rank = communicator.rank() == 0;
        if first_rank {
            *shared() = Some(Arc::new(Writer::begin(&self.config.run.dir, rank.steps())?));
        }
        communicator.barrier(&world)?;
        let writer = shared().clone();
        let Some(writer) = writer else {
            return Err(Error::other("a checkpoint was begun by no rank"));
        };

        let states = rank.export()?;
        let moments: Vec<[String; 2]> = states.iter().map(|s| [adam_m(&s.name), adam_v(&s.name)]).collect();
        let mut tensors = Vec::with_capacity(3 * states.len());
        for (state, [m, v]) in states.iter().zip(&moments) {
            for (name, values) in [(&state.name, &state.value), (m, &state.m), (v, &state.v)] {
                tensors.push(ShardTensor { name, slice: &state.slice, values });
            }
        }
        if !tensors.is_empty() {
            writer.write_shard(communicator.rank(), &tensors)?;
        }
        communicator.barrier(&world)?;
        if first_rank {
            shared().take();
            let samples_consumed = rank.steps() * self.config.train.global_batch as u64;
            let meta = Meta { samples_consumed, ..self.meta.clone() };
            let path = writer.finish(meta, self.config.train.keep_checkpoints)?;
            self.observer.lock().unwrap_or_else(PoisonError::into_inner).saved(rank.steps(), &path);
        }
        Ok(())
    }
}

fn diverged(step: u64, loss: f32, grad_norm: f32, lr: f64) -> Error {
    Error::other(format!("the run diverged at step {step}: loss {loss}, gradient norm {grad_norm}, learning rate {lr:.3e}"))
        .remedy("resume from the last checkpoint with a smaller train.lr, a longer train.warmup_steps or a smaller train.clip")
}
