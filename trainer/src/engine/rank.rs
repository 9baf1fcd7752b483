//! One rank: its model chunks, and the interpreter of its schedule.

use std::sync::Arc;
use std::time::Instant;

use backend::ops::Scratch as Need;
use backend::{Backend, Communicator, DType, Group, GroupKind, ReduceOp, Result};
use model::layers::Scratch;
use model::store::BLOCK;
use model::{GptConfig, Microbatch, Shard, Slice, StageOptions, StoreOptions};

use super::chunk::{ChunkConfig, ModelChunk, Neighbours};
use super::scaler::LossScaler;
use super::state::{self, TensorState};
use super::totals::{Tally, Totals};
use super::{AdamWSettings, Samples, unreadable};
use crate::layout::{Coordinates, Layout, virtual_stage_layers};
use crate::options::{Execution, Numerics, Precision};
use crate::schedule::{Instruction, Pipeline, Unit};
use crate::timeline::{Args, Category, Recorder};

/// What a rank must know of a run.
#[derive(Clone, Debug)]
pub struct RankConfig {
    /// The model.
    pub model: GptConfig,
    /// The cut of the world.
    pub layout: Layout,
    /// How it is executed.
    pub execution: Execution,
    /// Tokens a sample.
    pub seq_len: usize,
    /// Samples that a replica runs at once.
    pub micro_batch: usize,
    /// Most samples a step.
    pub global_batch: usize,
    /// The optimizer.
    pub optimizer: AdamWSettings,
    /// Seed of initial weights and dropout.
    pub seed: u64,
}

impl RankConfig {
    /// The schedule of a step of `global_batch` samples.
    pub fn pipeline(&self, global_batch: usize) -> Pipeline {
        Pipeline {
            schedule: self.execution.schedule,
            stages: self.layout.pp(),
            chunks: self.execution.virtual_stages,
            microbatches: self.layout.microbatches(self.micro_batch, global_batch),
        }
    }

    /// The part of the model that chunk `chunk` of a rank holds.
    ///
    /// # Errors
    /// A layout that has more stages than there are layers.
    pub fn shard(&self, at: Coordinates, chunk: usize) -> Result<Shard> {
        let pipeline = self.pipeline(self.global_batch);
        let (stage, stages) = (pipeline.virtual_stage(at.pp, chunk), pipeline.stages * pipeline.chunks);
        let layers = self.execution.layers.as_deref();
        let layers = virtual_stage_layers(self.model.layers, layers, stages, stage).map_err(|error| {
            backend::Error::Argument {
                op: "layout",
                name: "pipeline",
                value: error.to_string(),
                range: "at most the number of layers",
            }
        })?;
        let (tp, sequence_parallel) = (self.layout.tp(), self.execution.sequence_parallel);
        let (chunks, token_chunks) = match self.execution.numerics {
            Numerics::Invariant { chunks } => (chunks, chunks),
            Numerics::Fast => (tp, if sequence_parallel { tp } else { 1 }),
        };
        Ok(Shard {
            tensor_rank: at.tp,
            tensor_size: tp,
            chunks,
            token_chunks,
            sequence_parallel,
            layers,
            first: stage == 0,
            last: stage + 1 == stages,
        })
    }

    /// How stages compute.
    pub fn stage_options(&self) -> StageOptions {
        let Execution { recompute, precision, numerics, sharded_optimizer, .. } = self.execution;
        let invariant = numerics != Numerics::Fast;
        let dtype = precision.dtype();
        let microbatches = self.layout.microbatches(self.micro_batch, self.global_batch);
        StageOptions {
            batch: self.micro_batch,
            seq: self.seq_len,
            partial: if invariant { DType::F32 } else { dtype },
            recompute,
            store: StoreOptions {
                dtype,
                parts: if sharded_optimizer { self.layout.dp() } else { 1 },
                tree: invariant.then_some(microbatches),
            },
        }
    }
}

/// What a step is to do.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan {
    /// Global index of its first sample.
    pub first_sample: u64,
    /// Samples; at most the configuration's.
    pub global_batch: usize,
    /// Learning rate.
    pub lr: f32,
    /// Whether this rank asks every rank to stop after this step.
    pub stop: bool,
}

/// What a step was like; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean loss of the global batch, in nats a token.
    pub loss: f32,
    /// Global norm of the gradients, before clipping.
    pub grad_norm: f32,
    /// Whether the weights were left as they were, because f16's gradients overflowed.
    pub skipped: bool,
    /// Whether a rank asked to stop after this step.
    pub stop: bool,
}

/// Writes down an instruction that is done. Messages write themselves down.
fn record(recorder: &Recorder, instruction: Instruction, begin: Instant) {
    let (category, name) = match instruction {
        Instruction::Forward(_) => (Category::Forward, "forward"),
        Instruction::Backward(_) => (Category::Backward, "backward"),
        Instruction::BackwardInput(_) => (Category::Backward, "backward input"),
        Instruction::BackwardWeight(_) => (Category::Weight, "backward weight"),
        Instruction::Step => (Category::Optimizer, "step"),
        _ => return,
    };
    let unit = instruction.unit();
    let args = Args {
        microbatch: unit.map(|unit| unit.microbatch),
        chunk: unit.map(|unit| unit.chunk),
        ..Args::default()
    };
    recorder.span(category, name, begin, Instant::now(), args);
}

/// One rank of the world.
pub struct Rank<'a, B: Backend> {
    backend: &'a B,
    communicator: &'a dyn Communicator<B::Buffer>,
    config: RankConfig,
    at: Coordinates,
    chunks: Vec<ModelChunk<'a, B>>,
    /// The instructions of a step, and for how many samples.
    program: (usize, Vec<Instruction>),
    tally: Tally<B>,
    scaler: Option<LossScaler>,
    data: Group,
    embedding: Group,
    /// Optimizer steps done.
    steps: u64,
    /// Where what is done when is written down, while it is.
    recorder: Option<&'a Recorder>,
}

impl<'a, B: Backend> Rank<'a, B> {
    /// The rank that `communicator` speaks for, with weights drawn from the seed. The configuration has been validated.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        communicator: &'a dyn Communicator<B::Buffer>,
        config: RankConfig,
    ) -> Result<Self> {
        let rank = Self::allocate(backend, communicator, config)?;
        rank.chunks.iter().try_for_each(|chunk| state::initialize(backend, chunk, rank.config.seed))?;
        Ok(rank)
    }

    /// The rank with all of its memory, and no weights in it.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn allocate(
        backend: &'a B,
        communicator: &'a dyn Communicator<B::Buffer>,
        config: RankConfig,
    ) -> Result<Self> {
        let RankConfig { layout, ref model, ref execution, global_batch, .. } = config;
        let rank = communicator.rank();
        let at = layout.coordinates(rank);
        let pipeline = config.pipeline(global_batch);
        let program = pipeline.instructions(at.pp);
        let options = config.stage_options();
        let parts = options.store.parts;

        let shards: Vec<Shard> =
            (0..pipeline.chunks).map(|chunk| config.shard(at, chunk)).collect::<Result<_>>()?;
        let flat_len = |shard: &Shard| -> usize {
            let padded = |n: usize| n.next_multiple_of(BLOCK);
            let len: usize = shard.parameters(model).iter().map(|p| padded(p.slice.len())).sum();
            len.next_multiple_of(parts * BLOCK)
        };
        let longest = shards.iter().map(flat_len).max().unwrap_or(0);
        let needs = [Need::Sum { n: longest / BLOCK }, Need::Sum { n: pipeline.microbatches }];
        let dims = options.dims(model, &shards[0]);
        let scratch = Arc::new(Scratch::new(backend, &dims, options.recompute, &needs)?);

        let rank_at = |(pp, _)| layout.rank_of(Coordinates { pp, ..at });
        let chunk = |(index, shard): (usize, &Shard)| {
            let neighbours = Neighbours {
                previous: pipeline.previous(at.pp, index).map(rank_at),
                next: pipeline.next(at.pp, index).map(rank_at),
            };
            let chunk_config = ChunkConfig {
                model,
                shard,
                options: &options,
                optimizer: config.optimizer,
                share: if parts > 1 { (at.dp, parts) } else { (0, 1) },
                scatter_gather: execution.scatter_gather,
                microbatches: pipeline.microbatches,
            };
            let program = (&program[..], index);
            let scratch = Arc::clone(&scratch);
            let tensor = layout.tensor_group(rank);
            ModelChunk::new(backend, communicator, tensor, neighbours, &chunk_config, program, scratch)
        };
        let chunks: Vec<ModelChunk<'a, B>> = shards.iter().enumerate().map(chunk).collect::<Result<_>>()?;

        let data = Group::new(GroupKind::Data, layout.data_group(rank));
        let world = Group::new(GroupKind::World, layout.world_group());
        let tree_chunks = match execution.numerics {
            Numerics::Fast => None,
            Numerics::Invariant { chunks } => Some(chunks),
        };
        let sizes = (longest, pipeline.microbatches * layout.dp());
        let tally = Tally::new(backend, model, tree_chunks, sizes, [world, data.clone()])?;
        Ok(Self {
            program: (global_batch, program),
            scaler: (execution.precision == Precision::F16).then(|| LossScaler::new(execution.loss_scale)),
            embedding: Group::new(GroupKind::Embedding, layout.embedding_group(rank)),
            steps: 0,
            recorder: None,
            data,
            tally,
            backend,
            communicator,
            at,
            chunks,
            config,
        })
    }

    /// Optimizer steps done, skipped ones not counted.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Writes down when instructions begin and end, until it is given `None`. The device is waited for behind each one, so that a span is what it took.
    pub fn record(&mut self, recorder: Option<&'a Recorder>) {
        self.recorder = recorder;
    }

    /// The instructions of a step.
    pub fn program(&self) -> &[Instruction] {
        &self.program.1
    }

    /// The loss scale of f16, and what it has seen.
    pub fn scaler(&mut self) -> Option<&mut LossScaler> {
        self.scaler.as_mut()
    }

    /// The model chunks.
    pub fn chunks(&self) -> &[ModelChunk<'a, B>] {
        &self.chunks
    }

    /// One step: forward, backward, reduction, clipping, update.
    ///
    /// # Errors
    /// Those of the backend and the communicator; a sample that cannot be read.
    pub fn train_step(&mut self, samples: &dyn Samples, plan: StepPlan) -> Result<StepStats> {
        if self.program.0 != plan.global_batch {
            let program = self.config.pipeline(plan.global_batch).instructions(self.at.pp);
            self.program = (plan.global_batch, program);
        }
        for chunk in &self.chunks {
            chunk.stage.parameters().begin_step(self.backend)?;
        }
        let mut stats = None;
        for index in 0..self.program.1.len() {
            let instruction = self.program.1[index];
            let begin = Instant::now();
            match instruction {
                Instruction::Step => stats = Some(self.update(&plan)?),
                _ => self.execute(instruction, samples, &plan)?,
            }
            if let Some(recorder) = self.recorder {
                self.backend.sync()?;
                record(recorder, instruction, begin);
            }
        }
        stats.ok_or_else(|| backend::Error::Argument {
            op: "step",
            name: "schedule",
            value: "no Step".to_owned(),
            range: "a list of instructions that ends with the update",
        })
    }

    /// One instruction but the last.
    fn execute(&self, instruction: Instruction, samples: &dyn Samples, plan: &StepPlan) -> Result<()> {
        let seed = Some(self.config.seed);
        let at = |unit: Unit| (&self.chunks[unit.chunk], unit.microbatch);
        match instruction {
            Instruction::RecvForward(unit) => at(unit).0.recv_forward(unit.microbatch),
            Instruction::Forward(unit) => self.forward(samples, plan, unit, seed),
            Instruction::SendForward(unit) => at(unit).0.send_forward(),
            Instruction::RecvBackward(unit) => at(unit).0.recv_backward(),
            Instruction::Backward(unit) => {
                let (chunk, i) = at(unit);
                chunk.stage.backward(chunk.kept(i), &self.microbatch(plan, i, seed), |_| Ok(()))
            }
            Instruction::BackwardInput(unit) => {
                let (chunk, i) = at(unit);
                let info = self.microbatch(plan, i, seed);
                chunk.stage.backward_input(chunk.kept(i), &info, chunk.deferred(i))
            }
            Instruction::BackwardWeight(unit) => {
                let (chunk, i) = at(unit);
                let info = self.microbatch(plan, i, seed);
                chunk.stage.backward_weight(chunk.kept(i), &info, chunk.deferred(i))
            }
            Instruction::SendBackward(unit) => at(unit).0.send_backward(),
            Instruction::ReduceTiedEmbedding => self.reduce_tied_embedding(),
            Instruction::ReduceGradients => self.reduce_gradients(),
            Instruction::Step => Ok(()),
        }
    }

    /// Mean loss of `batches` global batches from `first_sample` on, in nats a token; nothing is dropped and nothing learnt. The same on every rank.
    ///
    /// # Errors
    /// As [`train_step`](Self::train_step).
    pub fn validate(&self, samples: &dyn Samples, first_sample: u64, batches: u64) -> Result<f32> {
        let global_batch = self.config.global_batch;
        let microbatches = self.config.pipeline(global_batch).microbatches;
        let mut sum = 0.0;
        for batch in 0..batches {
            let first_sample = first_sample + batch * global_batch as u64;
            let plan = StepPlan { first_sample, global_batch, lr: 0.0, stop: false };
            for (index, chunk) in self.chunks.iter().enumerate() {
                for microbatch in 0..microbatches {
                    chunk.recv_forward(microbatch)?;
                    self.forward(samples, &plan, Unit { chunk: index, microbatch }, None)?;
                    chunk.send_forward()?;
                }
            }
            sum += f64::from(self.totals(&plan, false)?.loss);
        }
        Ok((sum / batches as f64) as f32)
    }

    /// Reads what this rank is to save; nothing on the replicas beside the first. Every rank calls it.
    ///
    /// # Errors
    /// Those of the backend and the communicator.
    pub fn export(&self) -> Result<Vec<TensorState>> {
        let chunk =
            |chunk: &ModelChunk<'_, B>| state::export(self.backend, self.communicator, &self.data, chunk);
        Ok(self.chunks.iter().map(chunk).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Continues after `steps` optimizer steps, with parameters and moments from `load(name, slice)`.
    ///
    /// # Errors
    /// Those of the backend and of `load`.
    pub fn import<E: From<backend::Error>>(
        &mut self,
        steps: u64,
        load: impl Fn(&str, &Slice) -> std::result::Result<[Vec<f32>; 3], E>,
    ) -> std::result::Result<(), E> {
        self.chunks.iter().try_for_each(|chunk| state::import(self.backend, chunk, &load))?;
        self.steps = steps;
        Ok(())
    }

    fn forward(
        &self,
        samples: &dyn Samples,
        plan: &StepPlan,
        unit: Unit,
        dropout_seed: Option<u64>,
    ) -> Result<()> {
        let (chunk, i) = (&self.chunks[unit.chunk], unit.microbatch);
        self.load(samples, plan, chunk, i)?;
        chunk.stage.forward(chunk.kept(i), &self.microbatch(plan, i, dropout_seed), chunk.loss(i)?)
    }

    /// Global index of the microbatch's first sample: each replica has its block of the global batch, so that sums over a replica's microbatches are subtrees
    /// of the sum over all of them.
    fn first_of(&self, plan: &StepPlan, microbatch: usize) -> u64 {
        let share = plan.global_batch / self.config.layout.dp();
        plan.first_sample + (self.at.dp * share + microbatch * self.config.micro_batch) as u64
    }

    fn microbatch(&self, plan: &StepPlan, index: usize, dropout_seed: Option<u64>) -> Microbatch {
        let tokens = (plan.global_batch * self.config.seq_len) as f64;
        Microbatch {
            index,
            first_sample: self.first_of(plan, index),
            dropout_seed,
            weight: (1.0 / tokens) as f32,
            loss_scale: self.scaler.map_or(1.0, |scaler| scaler.scale()),
        }
    }

    /// Brings the microbatch's input tokens to the first stage, its targets to the last.
    fn load(
        &self,
        samples: &dyn Samples,
        plan: &StepPlan,
        chunk: &ModelChunk<'_, B>,
        microbatch: usize,
    ) -> Result<()> {
        let kept = chunk.kept(microbatch);
        if kept.tokens().is_none() && kept.targets().is_none() {
            return Ok(());
        }
        let (s, b) = (self.config.seq_len, self.config.micro_batch);
        let mut sample = vec![0; s + 1];
        let (mut tokens, mut targets) = (Vec::with_capacity(b * s), Vec::with_capacity(b * s));
        for i in 0..b as u64 {
            let index = self.first_of(plan, microbatch) + i;
            samples.read(index, &mut sample).map_err(|cause| unreadable(index, cause))?;
            tokens.extend_from_slice(&sample[..s]);
            targets.extend_from_slice(&sample[1..]);
        }
        for (view, host) in [(kept.tokens(), &tokens), (kept.targets(), &targets)] {
            if let Some(view) = view {
                self.backend.write(view, bytemuck::cast_slice(host))?;
            }
        }
        Ok(())
    }

    /// First and last stage hold the same table: the gradient is the sum of both uses. Where sums are trees each use is summed over the replicas first, in
    /// [`reduce_gradients`](Self::reduce_gradients).
    fn reduce_tied_embedding(&self) -> Result<()> {
        match self.config.execution.numerics {
            Numerics::Fast => self.sum_tied(),
            Numerics::Invariant { .. } => Ok(()),
        }
    }

    fn sum_tied(&self) -> Result<()> {
        let tied = self.chunks.iter().find_map(|chunk| chunk.stage.parameters().tied_gradient());
        tied.map_or(Ok(()), |table| self.communicator.all_reduce(&self.embedding, ReduceOp::Sum, table))
    }

    /// Sums the gradients over the replicas: each replica's losses were weighted by the global batch, so the sum is the mean.
    fn reduce_gradients(&self) -> Result<()> {
        for chunk in &self.chunks {
            let parameters = chunk.stage.parameters();
            parameters.end_step(self.backend, chunk.stage.tensor())?;
            chunk.optimizer.reduce_gradients(parameters, self.communicator, &self.data)?;
            for gradient in parameters.uses() {
                self.communicator.all_reduce(&self.data, ReduceOp::Sum, gradient)?;
            }
        }
        if self.config.execution.numerics != Numerics::Fast {
            self.sum_tied()?;
            self.chunks.iter().try_for_each(|chunk| chunk.stage.parameters().add_uses(self.backend))?;
        }
        Ok(())
    }

    /// Norm, clipping and AdamW; nothing where f16's gradients overflowed.
    fn update(&mut self, plan: &StepPlan) -> Result<StepStats> {
        let Totals { loss, squares, stops } = self.totals(plan, true)?;
        let scale = self.scaler.map_or(1.0, |scaler| scaler.scale());
        let grad_norm = squares.sqrt() / scale;
        let skipped = self.scaler.is_some() && !grad_norm.is_finite();
        if let Some(scaler) = &mut self.scaler {
            scaler.update(!skipped);
        }
        if !skipped {
            self.steps += 1;
            let step = u32::try_from(self.steps).unwrap_or(u32::MAX);
            let factor = self.config.optimizer.clip_factor(grad_norm) / scale;
            for chunk in &self.chunks {
                let replicas = (self.communicator, &self.data);
                chunk.optimizer.step(
                    self.backend,
                    chunk.stage.parameters(),
                    replicas,
                    plan.lr,
                    factor,
                    step,
                )?;
            }
        }
        Ok(StepStats { loss, grad_norm, skipped, stop: stops > 0.0 })
    }

    fn totals(&self, plan: &StepPlan, norm: bool) -> Result<Totals> {
        let microbatches = self.config.pipeline(plan.global_batch).microbatches;
        let losses = (microbatches, self.config.layout.dp());
        let (backend, communicator) = (self.backend, self.communicator);
        self.tally.totals(backend, communicator, &self.chunks, self.at, losses, (norm, plan.stop))
    }
}
