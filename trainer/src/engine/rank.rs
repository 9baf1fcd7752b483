//! One rank: its model chunks, and the interpreter of its schedule.

use std::sync::Arc;
use std::time::Instant;

use backend::ops::Scratch as Need;
use backend::{Backend, Communicator, Error, Group, GroupKind, Lane, ReduceOp, Result};
use model::layers::Scratch;
use model::store::BLOCK;
use model::{Decoder, DecoderOptions, Microbatch, Shard, Slice, TensorGroup};

use super::buckets::Buckets;
use super::chunk::{ChunkConfig, ModelChunk, Neighbours};
use super::config::{RankConfig, StepPlan, StepStats};
use super::reducer::Reducer;
use super::scaler::LossScaler;
use super::state::{self, TensorState};
use super::totals::{Tally, Totals};
use super::{Samples, unreadable};
use crate::inference::ranks::{self, Part};
use crate::layout::Coordinates;
use crate::options::{Numerics, Precision};
use crate::schedule::{Instruction, Schedule, ScheduleError, Unit, max_in_flight};
use crate::timeline::{Args, Category, Recorder};

/// Writes down an instruction that is done. Messages write themselves down.
fn record(recorder: &Recorder, instruction: Instruction, [begin, end]: [Instant; 2]) {
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
    recorder.span(category, name, begin, end, args);
}

/// The backend's words for lists of instructions that do not fit together.
fn misfit(error: ScheduleError) -> Error {
    let value = error.to_string();
    Error::Argument { op: "schedule", name: "instructions", value, range: "lists that fit together" }
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
    /// What of each chunk's gradients is reduced while the last backward still runs; empty where nothing is.
    buckets: Vec<Buckets>,
    /// The model for inference, over the same weights; where it is asked for.
    inference: Option<ranks::Rank<'a, B>>,
    /// Through which that is said.
    reducer: &'a dyn Communicator<B::Buffer>,
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

        // The chunks of a rank share the lanes to its neighbours.
        for (lane, step) in [(Lane::Forward, 1), (Lane::Backward, pipeline.stages - 1)] {
            let Some(chunk) = chunks.iter().find(|chunk| chunk.sends(lane)) else { continue };
            let queued = pipeline.queued((at.pp + step) % pipeline.stages).map_err(misfit)?;
            let messages = if lane == Lane::Forward { queued.forward } else { queued.backward };
            chunk.reserve(lane, messages)?;
        }

        // A tree over microbatches is whole behind the last one only; a sharded reduction is one; a split backward ends with weights.
        let fused = execution.schedule != Schedule::ZbH1;
        let overlapping = execution.bucket > 0
            && layout.dp() > 1
            && !execution.sharded_optimizer
            && execution.numerics == Numerics::Fast
            && fused;
        let bucket = |chunk: &ModelChunk<'a, B>| {
            Buckets::new(chunk.stage.parameters(), chunk.stage.shard().layers.clone(), execution.bucket)
        };

        let data = Group::new(GroupKind::Data, layout.data_group(rank));
        let world = Group::new(GroupKind::World, layout.world_group());
        let tree_chunks = match execution.numerics {
            Numerics::Fast => None,
            Numerics::Invariant { chunks } => Some(chunks),
        };
        let part = |(index, chunk): (usize, &ModelChunk<'a, B>), options: DecoderOptions| {
            let group = Group::new(GroupKind::Tensor, layout.tensor_group(rank));
            let (tensor, stage) = (TensorGroup::new(communicator, group), &chunk.stage);
            let parameters = stage.shared_parameters();
            Ok::<_, Error>(Part {
                decoder: Decoder::over(backend, tensor, model, stage.shard(), options, parameters)?,
                previous: pipeline.previous(at.pp, index).map(rank_at),
                next: pipeline.next(at.pp, index).map(rank_at),
            })
        };
        let inference = config.inference.map(|asked| {
            let options = DecoderOptions { dtype: options.store.dtype, partial: options.partial, ..asked };
            let parts = chunks.iter().enumerate().map(|chunk| part(chunk, options)).collect::<Result<_>>()?;
            // Log-likelihoods, and whether a token is the likeliest.
            ranks::Rank::new(backend, communicator, layout, options, parts, 2)
        });
        let inference = inference.transpose()?;

        let sizes = (longest, pipeline.microbatches * layout.dp());
        let tally = Tally::new(backend, model, tree_chunks, sizes, [world, data.clone()])?;
        Ok(Self {
            program: (global_batch, program),
            scaler: (execution.precision == Precision::F16).then(|| LossScaler::new(execution.loss_scale)),
            embedding: Group::new(GroupKind::Embedding, layout.embedding_group(rank)),
            buckets: if overlapping { chunks.iter().map(bucket).collect() } else { Vec::new() },
            inference,
            reducer: communicator,
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

    /// Reduces buckets through `communicator`, the same rank's, so that a timeline has a row for them.
    pub fn reduce_through(&mut self, communicator: &'a dyn Communicator<B::Buffer>) {
        self.reducer = communicator;
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

    /// The model for inference, where the configuration asks for it. It has the weights that the last step left.
    pub fn inference(&mut self) -> Option<&mut ranks::Rank<'a, B>> {
        self.inference.as_mut()
    }

    /// The model chunks.
    pub fn chunks(&self) -> &[ModelChunk<'a, B>] {
        &self.chunks
    }

    /// Layers whose activations the rank has room for, each as often as microbatches are in flight.
    pub fn layers_in_flight(&self) -> usize {
        let chunks = self.chunks.iter().enumerate();
        chunks.map(|(i, chunk)| chunk.stage.shard().layers.len() * max_in_flight(&self.program.1, i)).sum()
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
        match self.buckets.is_empty() {
            true => self.work(samples, &plan, None)?,
            false => self.overlapped(samples, &plan)?,
        }
        self.backend.begins(&Instruction::Step);
        let begin = self.backend.now();
        let stats = self.update(&plan)?;
        self.written(Instruction::Step, begin)?;
        Ok(stats)
    }

    /// Everything in a step but the update, which is the last instruction.
    fn work(&self, samples: &dyn Samples, plan: &StepPlan, reducer: Option<&Reducer<'_>>) -> Result<()> {
        for &instruction in self.program.1.iter().filter(|&&instruction| instruction != Instruction::Step) {
            self.backend.begins(&instruction);
            let begin = self.backend.now();
            self.execute(instruction, samples, plan, reducer)?;
            self.written(instruction, begin)?;
        }
        Ok(())
    }

    /// The same, with a second thread that reduces the buckets as they are done.
    fn overlapped(&self, samples: &dyn Samples, plan: &StepPlan) -> Result<()> {
        std::thread::scope(|scope| {
            let reducer = Reducer::start(scope, |(chunk, range)| {
                let gradients = self.chunks[chunk].stage.parameters().gradients();
                let reduced = gradients
                    .rows(range.start, range.len())
                    .and_then(|bucket| self.reducer.all_reduce(&self.data, ReduceOp::Sum, bucket));
                // The interpreter may be waiting for another rank, which now will not come.
                reduced.inspect_err(|error| self.reducer.fail(&error.to_string()))
            });
            let result = self.work(samples, plan, Some(&reducer));
            // After an error too: the thread ends with its channel.
            let reduced = reducer.finish();
            result.and(reduced)
        })
    }

    /// Writes an instruction down that is done.
    fn written(&self, instruction: Instruction, begin: Instant) -> Result<()> {
        if let Some(recorder) = self.recorder {
            self.backend.sync()?;
            record(recorder, instruction, [begin, self.backend.now()]);
        }
        Ok(())
    }

    /// One instruction but the last.
    fn execute(
        &self,
        instruction: Instruction,
        samples: &dyn Samples,
        plan: &StepPlan,
        reducer: Option<&Reducer<'_>>,
    ) -> Result<()> {
        let seed = Some(self.config.seed);
        let at = |unit: Unit| (&self.chunks[unit.chunk], unit.microbatch);
        match instruction {
            Instruction::RecvForward(unit) => at(unit).0.recv_forward(unit.microbatch),
            Instruction::Forward(unit) => self.forward(samples, plan, unit, seed),
            Instruction::SendForward(unit) => at(unit).0.send_forward(),
            Instruction::RecvBackward(unit) => at(unit).0.recv_backward(),
            Instruction::Backward(unit) => {
                let (chunk, i) = at(unit);
                let last = i + 1 == self.config.pipeline(plan.global_batch).microbatches;
                let reducer = reducer.filter(|_| last);
                chunk.stage.backward(chunk.kept(i), &self.microbatch(plan, i, seed), |layer| {
                    let bucket = reducer.and(self.buckets.get(unit.chunk)).and_then(|b| b.done_with(layer));
                    if let (Some(reducer), Some(range)) = (reducer, bucket) {
                        reducer.reduce(unit.chunk, range);
                    }
                    Ok(())
                })
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
            Instruction::ReduceGradients => self.reduce_gradients(reducer),
            Instruction::Step => Ok(()),
        }
    }

    /// The samples that the rank reads of a step: its replica's, where its chunks begin or end the model; of a rank between, none.
    pub fn reads(&self, first_sample: u64, global_batch: usize) -> std::ops::Range<u64> {
        let reads =
            |chunk: &ModelChunk<'a, B>| chunk.kept(0).tokens().is_some() || chunk.kept(0).targets().is_some();
        let plan = StepPlan { first_sample, global_batch, lr: 0.0, stop: false };
        let first = self.first_of(&plan, 0);
        let share = (global_batch / self.config.layout.dp()) as u64;
        first..first + if self.chunks.iter().any(reads) { share } else { 0 }
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
    pub fn import<E: From<Error>>(
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
    fn reduce_gradients(&self, reducer: Option<&Reducer<'_>>) -> Result<()> {
        reducer.map_or(Ok(()), Reducer::finish)?;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let parameters = chunk.stage.parameters();
            parameters.end_step(self.backend, chunk.stage.tensor())?;
            let done = self.buckets.get(index).map_or(0..0, Buckets::covered);
            chunk.optimizer.reduce_gradients(parameters, self.communicator, &self.data, &done)?;
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
