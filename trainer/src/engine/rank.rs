//! One rank: its stage of the model, its neighbours, and the interpreter of its schedule.

use backend::{Backend, Class, Communicator, DType, Group, GroupKind, ReduceOp, Result, Shape, Tensor};
use model::{Activations, GptConfig, Microbatch, Shard, Slice, Stage, TensorGroup};

use super::state::{self, TensorState};
use super::{AdamWSettings, Optimizer, Samples, unreadable};
use crate::layout::{Coordinates, Layout};
use crate::schedule::{Instruction, Schedule, instructions, max_in_flight};

/// What a rank must know of a run.
#[derive(Clone, Debug)]
pub struct RankConfig {
    /// The model.
    pub model: GptConfig,
    /// The cut of the world.
    pub layout: Layout,
    /// In which order a pipeline runs its microbatches.
    pub schedule: Schedule,
    /// Tokens a sample.
    pub seq_len: usize,
    /// Samples that a replica runs at once.
    pub micro_batch: usize,
    /// Samples a step.
    pub global_batch: usize,
    /// The optimizer.
    pub optimizer: AdamWSettings,
    /// Seed of initial weights and dropout.
    pub seed: u64,
}

/// What a step was like; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean loss of the global batch, in nats a token.
    pub loss: f32,
    /// Global norm of the gradients, before clipping.
    pub grad_norm: f32,
    /// Whether a rank asked to stop after this step.
    pub stop: bool,
}

/// The world-wide sums of a step, in the order of the scalars' buffer.
struct Totals {
    loss: f32,
    squares: f32,
    stops: f32,
}

/// One rank of the world.
pub struct Rank<'a, B: Backend> {
    backend: &'a B,
    communicator: &'a dyn Communicator<B::Buffer>,
    config: RankConfig,
    at: Coordinates,
    stage: Stage<'a, B>,
    optimizer: Optimizer<B>,
    program: Vec<Instruction>,
    /// Activations of the microbatches in flight: microbatch i has set `i % in_flight`.
    in_flight: Vec<Activations<B>>,
    data: Group,
    embedding: Group,
    world: Group,
    previous: Option<usize>,
    next: Option<usize>,
    /// `[3]`: loss, squares, stops, to be summed over the world.
    scalars: Tensor<B::Buffer>,
    /// Optimizer steps done.
    steps: u64,
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
        let RankConfig { layout, ref model, schedule, micro_batch, global_batch, .. } = config;
        let rank = communicator.rank();
        let at = layout.coordinates(rank);
        let layers = layout.layers_of(rank, model.layers).map_err(|error| backend::Error::Argument {
            op: "layout",
            name: "pipeline",
            value: error.to_string(),
            range: "at most the number of layers",
        })?;
        let shard = Shard {
            tensor_rank: at.tp,
            tensor_size: layout.tp(),
            layers,
            first: at.pp == 0,
            last: at.pp + 1 == layout.pp(),
        };
        let tensor = TensorGroup::new(communicator, Group::new(GroupKind::Tensor, layout.tensor_group(rank)));
        let stage = Stage::new(backend, tensor, model, &shard, micro_batch, config.seq_len)?;
        stage.parameters().initialize(backend, config.seed)?;
        let microbatches = layout.microbatches(micro_batch, global_batch);
        let program = instructions(schedule, layout.pp(), microbatches, at.pp);
        let in_flight = (0..max_in_flight(&program)).map(|_| stage.activations()).collect::<Result<_>>()?;
        Ok(Self {
            optimizer: Optimizer::new(backend, config.optimizer, stage.parameters())?,
            program,
            in_flight,
            data: Group::new(GroupKind::Data, layout.data_group(rank)),
            embedding: Group::new(GroupKind::Embedding, layout.embedding_group(rank)),
            world: Group::new(GroupKind::World, layout.world_group()),
            previous: layout.previous_stage(rank),
            next: layout.next_stage(rank),
            scalars: backend.alloc(Class::Workspace, DType::F32, Shape::new(&[3]))?,
            steps: 0,
            backend,
            communicator,
            at,
            stage,
            config,
        })
    }

    /// Optimizer steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The stage.
    pub fn stage(&self) -> &Stage<'a, B> {
        &self.stage
    }

    /// One step on the `global_batch` samples from `first_sample` on: forward, backward, reduction, clipping, update. `stop` asks every rank to stop
    /// after this step.
    ///
    /// # Errors
    /// Those of the backend and the communicator; a sample that cannot be read.
    pub fn train_step(
        &mut self,
        samples: &dyn Samples,
        first_sample: u64,
        lr: f32,
        stop: bool,
    ) -> Result<StepStats> {
        self.backend.fill(self.stage.parameters().gradients(), 0.0)?;
        self.stage.reset_loss()?;
        let mut stats = None;
        for index in 0..self.program.len() {
            match self.program[index] {
                Instruction::RecvForward { microbatch } => self.recv_forward(microbatch)?,
                Instruction::Forward { microbatch } => {
                    self.load(samples, first_sample, microbatch)?;
                    let info = self.microbatch(first_sample, microbatch, Some(self.config.seed));
                    self.stage.forward(self.kept(microbatch), &info)?;
                }
                Instruction::SendForward { microbatch } => self.send_forward(microbatch)?,
                Instruction::RecvBackward { .. } => self.recv_backward()?,
                Instruction::Backward { microbatch } => {
                    let info = self.microbatch(first_sample, microbatch, Some(self.config.seed));
                    self.stage.backward(self.kept(microbatch), &info)?;
                }
                Instruction::SendBackward { .. } => self.send_backward()?,
                Instruction::ReduceGradients => self.reduce_gradients()?,
                Instruction::ReduceTiedEmbedding => self.reduce_tied_embedding()?,
                Instruction::Step => stats = Some(self.update(lr, stop)?),
            }
        }
        stats.ok_or_else(|| backend::Error::Argument {
            op: "step",
            name: "schedule",
            value: "no Step".to_owned(),
            range: "a list of instructions that ends with the update",
        })
    }

    /// Mean loss of `batches` global batches from `first_sample` on, in nats a token; nothing is dropped and nothing learnt. The same on every rank.
    ///
    /// # Errors
    /// As [`train_step`](Self::train_step).
    pub fn validate(&mut self, samples: &dyn Samples, first_sample: u64, batches: u64) -> Result<f32> {
        self.stage.reset_loss()?;
        let per_batch = self.config.layout.microbatches(self.config.micro_batch, self.config.global_batch);
        for batch in 0..batches {
            let first_sample = first_sample + batch * self.config.global_batch as u64;
            for microbatch in 0..per_batch {
                self.recv_forward(microbatch)?;
                self.load(samples, first_sample, microbatch)?;
                let info = self.microbatch(first_sample, microbatch, None);
                self.stage.forward(self.kept(microbatch), &info)?;
                self.send_forward(microbatch)?;
            }
        }
        Ok(self.totals(false, false)?.loss / batches as f32)
    }

    /// Reads what this rank is to save; nothing on the replicas beside the first.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn export(&self) -> Result<Vec<TensorState>> {
        match self.at.dp {
            0 => state::export(self.backend, self.stage.parameters(), &self.optimizer, self.stage.shard()),
            _ => Ok(Vec::new()),
        }
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
        state::import(self.backend, self.stage.parameters(), Some(&self.optimizer), load)?;
        self.steps = steps;
        Ok(())
    }

    fn kept(&self, microbatch: usize) -> &Activations<B> {
        &self.in_flight[microbatch % self.in_flight.len()]
    }

    /// Global index of the microbatch's first sample: microbatch after microbatch, in each one replica after replica (Megatron's order).
    fn first_of(&self, first_sample: u64, microbatch: usize) -> u64 {
        let place = microbatch * self.config.layout.dp() + self.at.dp;
        first_sample + (place * self.config.micro_batch) as u64
    }

    fn microbatch(&self, first_sample: u64, microbatch: usize, dropout_seed: Option<u64>) -> Microbatch {
        let tokens = (self.config.global_batch * self.config.seq_len) as f64;
        Microbatch {
            first_sample: self.first_of(first_sample, microbatch),
            dropout_seed,
            weight: (1.0 / tokens) as f32,
        }
    }

    /// Brings the microbatch's input tokens to the first stage, its targets to the last.
    fn load(&self, samples: &dyn Samples, first_sample: u64, microbatch: usize) -> Result<()> {
        let kept = self.kept(microbatch);
        if kept.tokens().is_none() && kept.targets().is_none() {
            return Ok(());
        }
        let (s, b) = (self.config.seq_len, self.config.micro_batch);
        let mut sample = vec![0; s + 1];
        let (mut tokens, mut targets) = (Vec::with_capacity(b * s), Vec::with_capacity(b * s));
        for i in 0..b as u64 {
            let index = self.first_of(first_sample, microbatch) + i;
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

    fn recv_forward(&self, microbatch: usize) -> Result<()> {
        match self.previous {
            Some(rank) => self.communicator.recv(rank, self.kept(microbatch).input()),
            None => Ok(()),
        }
    }

    fn send_forward(&self, microbatch: usize) -> Result<()> {
        match self.next {
            Some(rank) => self.communicator.send(rank, self.kept(microbatch).output()),
            None => Ok(()),
        }
    }

    fn recv_backward(&self) -> Result<()> {
        match self.next {
            Some(rank) => self.communicator.recv(rank, self.stage.gradient()),
            None => Ok(()),
        }
    }

    fn send_backward(&self) -> Result<()> {
        match self.previous {
            Some(rank) => self.communicator.send(rank, self.stage.gradient()),
            None => Ok(()),
        }
    }

    /// Sums the gradients over the replicas: each replica's losses were weighted by the global batch, so the sum is the mean.
    fn reduce_gradients(&self) -> Result<()> {
        self.communicator.all_reduce(&self.data, ReduceOp::Sum, self.stage.parameters().gradients())
    }

    /// First and last stage hold the same table: the gradient is the sum of both uses.
    fn reduce_tied_embedding(&self) -> Result<()> {
        let parameters = self.stage.parameters();
        match parameters.find("embedding.token.weight") {
            Some(table) => {
                self.communicator.all_reduce(&self.embedding, ReduceOp::Sum, parameters.gradient(table))
            }
            None => Ok(()),
        }
    }

    /// Norm, clipping and AdamW.
    fn update(&mut self, lr: f32, stop: bool) -> Result<StepStats> {
        let totals = self.totals(true, stop)?;
        let grad_norm = totals.squares.sqrt();
        self.steps += 1;
        let step = u32::try_from(self.steps).unwrap_or(u32::MAX);
        let scale = self.optimizer.clip_factor(grad_norm);
        self.optimizer.step(self.backend, self.stage.parameters(), lr, scale, step)?;
        Ok(StepStats { loss: totals.loss, grad_norm, stop: totals.stops > 0.0 })
    }

    /// Sums loss, squares of the gradients (with `norm`) and wishes to stop over the world: the one thing in a step that is read back.
    fn totals(&self, norm: bool, stop: bool) -> Result<Totals> {
        let scalars = self.scalars.view();
        let mut host = [0.0, 0.0, f32::from(u8::from(stop))];
        self.backend.write(scalars, bytemuck::cast_slice(&host))?;
        if self.next.is_none() && self.at.tp == 0 {
            self.backend.copy(self.stage.loss(), scalars.rows(0, 1)?)?;
        }
        if norm && self.at.dp == 0 {
            let (parameters, shard) = (self.stage.parameters(), self.stage.shard());
            let out = scalars.rows(1, 1)?;
            self.optimizer.add_squares(self.backend, parameters, shard, out, self.stage.workspace())?;
        }
        self.communicator.all_reduce(&self.world, ReduceOp::Sum, scalars)?;
        self.backend.read(scalars, bytemuck::cast_slice_mut(&mut host))?;
        let [loss, squares, stops] = host;
        Ok(Totals { loss, squares, stops })
    }
}
