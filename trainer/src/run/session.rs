//! The loop of one rank: step, validate, save, until the last step or a wish to stop. The same on every rank; the first one keeps the books.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::{Backend, Communicator, Group, GroupKind};
use model::DecoderOptions;

use super::evaluation::Evaluation;
use crate::checkpoint::{Meta, Reader, Writer};
use crate::config::RunConfig;
use crate::engine::{AdamWSettings, Prefetch, Rank, RankConfig, Samples, Shelf, StepPlan};
use crate::inference::loaded::{Needs, TASK_TOKENS};
use crate::ledger::Recorded;
use crate::metrics::{Evaluated, StepMetrics};
use crate::timeline::Recorder;
use crate::{Error, Result};

/// Steps of a session that the timeline shows.
const TIMELINE_STEPS: u64 = 4;
/// The most spans of a rank that it shows.
const SPANS: usize = 20_000;

/// What the first rank tells of each step.
pub trait Observer: Send {
    /// A step is done, validated if it was due.
    ///
    /// # Errors
    /// The step cannot be recorded: the run stops.
    fn step(&mut self, metrics: &StepMetrics) -> Result<()>;

    /// The step's model is about to be asked a task.
    fn asks(&mut self, step: u64, task: &str);

    /// What came of it, in a line.
    fn answered(&mut self, step: u64, result: &str);

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
    /// What it is asked between steps.
    pub evaluation: Option<&'a Evaluation>,
    /// Where to go on, if not at the beginning.
    pub resume: Option<&'a Reader>,
    /// What checkpoints say of the run; the samples consumed are filled in.
    pub meta: Meta,
    /// Set by Ctrl-C and SIGTERM; in whichever process, all stop after the step.
    pub stop: &'a AtomicBool,
    /// Who is told.
    pub observer: &'a Mutex<dyn Observer + 'a>,
    /// The checkpoint being written.
    pub writer: Mutex<Option<Arc<Writer>>>,
    /// Whether each rank is a process of its own.
    pub processes: bool,
    /// When the timeline begins.
    pub origin: Instant,
    /// What each rank of this process did when, once it has ended.
    pub recorders: Mutex<Vec<Recorder>>,
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

/// What the evaluation needs of the model, as far as the configuration knows it. A tokenizer that is a file may have fewer tokens.
fn inference(config: &RunConfig) -> DecoderOptions {
    let Needs { slots, length, tokens, rows } = Needs::of_tasks(TASK_TOKENS, config.model.seq_len);
    let vocabulary = config.data.tokenizer.tokens().unwrap_or(config.model.vocab).min(config.model.vocab);
    let stage = config.train.precision.dtype();
    DecoderOptions { slots, length, tokens, rows, vocabulary, dtype: stage, partial: stage }
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
        inference: (!config.evaluation.tasks.is_empty()).then(|| inference(config)),
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Steps done, skipped ones included: what the data's position follows from.
    step: u64,
    /// Tokens of the steps that updated the weights: what the learning rate follows from.
    scheduled_tokens: u64,
}

impl Session<'_> {
    /// Runs one rank to the end of the session. What goes wrong is also written to the ledger.
    ///
    /// # Errors
    /// Those of the ranks, the data and the disk; a loss that is not finite.
    pub fn rank<B: Backend>(&self, backend: &B, communicator: &dyn Communicator<B::Buffer>) -> Result<Ended> {
        let layout = self.config.layout();
        let at = layout.coordinates(communicator.rank());
        let label = format!("stage {}, replica {}, tensor {}", at.pp, at.dp, at.tp);
        let recorder = Recorder::new(communicator.rank(), &label, self.origin, SPANS);
        let recorded = Recorded::new(communicator, Some(&recorder));
        let beside = Recorder::new(
            layout.world_size() + communicator.rank(),
            &format!("{label}, buckets"),
            self.origin,
            SPANS,
        );
        let buckets = Recorded::new(communicator, Some(&beside));
        let shelf = Shelf::default();
        let ended = std::thread::scope(|scope| {
            let samples = Prefetch::start(scope, &shelf, self.train, self.config.train.seq_len + 1);
            self.train(backend, &samples, [&recorded, &buckets], [&recorder, &beside])
        });
        if let Err(error) = &ended {
            // The run stops for the error, not for what the ledger cannot say of it.
            let _ = recorded.write(&self.config.run.dir, &error.to_string());
        }
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.push(recorder);
        if !beside.spans().is_empty() {
            recorders.push(beside);
        }
        ended
    }

    fn train<'a, B: Backend>(
        &self,
        backend: &'a B,
        samples: &Prefetch<'_>,
        [communicator, buckets]: [&'a Recorded<'a, B::Buffer>; 2],
        [recorder, beside]: [&'a Recorder; 2],
    ) -> Result<Ended> {
        let (config, train) = (self.config, &self.config.train);
        let (batch, schedule, seq_len) = (config.batch(), config.learning_rate(), train.seq_len as u64);
        let mut rank_config = rank_config(config);
        if let Some(inference) = &mut rank_config.inference {
            inference.vocabulary = self.meta.tokenizer.tokens.min(config.model.vocab);
        }
        let mut rank = Rank::new(backend, communicator, rank_config)?;
        rank.reduce_through(buckets);
        let mut position = Position::default();
        if let Some(reader) = self.resume {
            let meta = reader.meta();
            position = Position { step: reader.step(), scheduled_tokens: meta.scheduled_tokens };
            rank.import(meta.updates, |name, slice| -> Result<_> { Ok(reader.read_state(name, slice)?) })?;
            if let (Some(scaler), Some(state)) = (rank.scaler(), meta.loss_scale) {
                scaler.restore(state);
            }
        }
        let first_rank = communicator.rank() == 0;
        let recorded = position.step + 1..position.step + 1 + TIMELINE_STEPS;
        let mut valid_loss = None;
        while position.step < train.steps {
            let begin = backend.now();
            let step = position.step + 1;
            let first_sample = batch.samples_after(position.step);
            let global_batch = batch.global_batch(first_sample);
            let tokens = global_batch as u64 * seq_len;
            let lr = schedule.at(position.scheduled_tokens + tokens);
            let stop = self.stop.load(Ordering::Relaxed);
            let recording = recorded.contains(&step);
            [recorder, beside].iter().for_each(|recorder| recorder.pause(!recording));
            rank.record(recording.then_some(recorder));
            let plan = StepPlan { first_sample, global_batch, lr: lr as f32, stop };
            // What the next step reads is read while this one runs.
            let next = first_sample + global_batch as u64;
            let next = match step < train.steps {
                true => rank.reads(next, batch.global_batch(next)),
                false => next..next,
            };
            samples.announce(rank.reads(first_sample, global_batch).start, next);
            let stats = rank.train_step(samples, plan)?;
            [recorder, beside].iter().for_each(|recorder| recorder.pause(true));
            let tokens_per_second = tokens as f64 / (backend.now() - begin).as_secs_f64();
            if !(stats.skipped || stats.loss.is_finite() && stats.grad_norm.is_finite()) {
                return Err(diverged(step, stats.loss, stats.grad_norm, lr));
            }
            position.step = step;
            position.scheduled_tokens += if stats.skipped { 0 } else { tokens };
            let last = step == train.steps || stats.stop;
            let due = |every: u64| last || (every > 0 && step.is_multiple_of(every));
            let validated = match due(train.valid_every) {
                true => Some(rank.validate(self.valid, 0, train.valid_batches)?),
                false => None,
            };
            valid_loss = validated.or(valid_loss);
            let evaluation = self.evaluate(&mut rank, first_rank, position.step, stats.stop)?;
            if first_rank {
                self.observer.lock().unwrap_or_else(PoisonError::into_inner).step(&StepMetrics {
                    step,
                    loss: stats.loss.into(),
                    lr,
                    grad_norm: stats.grad_norm.into(),
                    tokens_per_second,
                    valid_loss: validated.map(f64::from),
                    evaluation,
                })?;
            }
            if due(train.checkpoint_every) {
                self.save(&mut rank, communicator, position)?;
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
        Ok(Ended { step: position.step, valid_loss, backend })
    }

    /// Asks the step's model the tasks, where that is due. A run that is to stop has no time for it.
    fn evaluate<B: Backend>(
        &self,
        rank: &mut Rank<'_, B>,
        first_rank: bool,
        step: u64,
        stops: bool,
    ) -> Result<Vec<Evaluated>> {
        let last = step == self.config.train.steps;
        let due = self.evaluation.filter(|evaluation| !stops && evaluation.is_due(step, last));
        let Some((evaluation, rank)) = due.zip(rank.inference()) else { return Ok(Vec::new()) };
        let mut tell = |text: &str, done: bool| {
            let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
            if done { observer.answered(step, text) } else { observer.asks(step, text) }
        };
        evaluation.ask(rank, self.stop, first_rank.then_some(&mut tell))
    }

    /// Writes a checkpoint together with the other ranks.
    fn save<B: Backend>(
        &self,
        rank: &mut Rank<'_, B>,
        communicator: &dyn Communicator<B::Buffer>,
        position: Position,
    ) -> Result<()> {
        let world = Group::new(GroupKind::World, self.config.layout().world_group());
        let shared = || self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (dir, step) = (&self.config.run.dir, position.step);
        let first_rank = communicator.rank() == 0;
        if first_rank {
            let begin = if self.processes { Writer::begin_shared } else { Writer::begin };
            *shared() = Some(Arc::new(begin(dir, step)?));
        }
        communicator.barrier(&world)?;
        let writer = match self.processes && !first_rank {
            true => Some(Arc::new(Writer::join(dir, step))),
            false => shared().clone(),
        };
        let Some(writer) = writer else {
            return Err(Error::other("a checkpoint was begun by no rank"));
        };

        writer.write_states(communicator.rank(), &rank.export()?)?;
        communicator.barrier(&world)?;
        if first_rank {
            shared().take();
            let meta = Meta {
                samples_consumed: self.config.batch().samples_after(step),
                updates: rank.steps(),
                scheduled_tokens: position.scheduled_tokens,
                loss_scale: rank.scaler().map(|scaler| scaler.state()),
                ..self.meta.clone()
            };
            let path = writer.finish(meta, self.config.train.keep_checkpoints)?;
            self.observer.lock().unwrap_or_else(PoisonError::into_inner).saved(step, &path);
        }
        // Nobody goes on, or ends, before the checkpoint is in its place.
        Ok(communicator.barrier(&world)?)
    }
}

fn diverged(step: u64, loss: f32, grad_norm: f32, lr: f64) -> Error {
    Error::other(format!("the run diverged at step {step}: loss {loss}, gradient norm {grad_norm}, learning rate {lr:.3e}"))
        .remedy("resume from the last checkpoint with a smaller train.lr, a longer train.warmup_steps or a smaller train.clip")
}
