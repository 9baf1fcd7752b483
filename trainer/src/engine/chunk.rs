//! A model chunk: a virtual stage of the pipeline on one rank, with its optimizer, its neighbours, and memory for the microbatches in flight.

use std::sync::Arc;

use backend::{Backend, Class, Communicator, DType, Group, GroupKind, Lane, Result, Shape, Tensor, View};
use model::layers::Scratch;
use model::{Activations, Deferred, GptConfig, Shard, Stage, StageOptions, TensorGroup};

use super::{AdamWSettings, Optimizer};
use crate::schedule::{Instruction, max_deferred, max_in_flight};

/// Where a chunk's activations go to or come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbours {
    /// World rank of the virtual stage before.
    pub previous: Option<usize>,
    /// World rank of the virtual stage after.
    pub next: Option<usize>,
}

/// What a chunk is made from.
pub struct ChunkConfig<'c> {
    /// The model.
    pub model: &'c GptConfig,
    /// This chunk's part of it.
    pub shard: &'c Shard,
    /// How it computes.
    pub options: &'c StageOptions,
    /// The optimizer's settings.
    pub optimizer: AdamWSettings,
    /// Where this replica's share of the optimizer's state stands among how many.
    pub share: (usize, usize),
    /// Whether tensor ranks each send their part of the output.
    pub scatter_gather: bool,
    /// Most microbatches of a step.
    pub microbatches: usize,
}

/// One virtual stage.
pub struct ModelChunk<'a, B: Backend> {
    /// Its layers.
    pub stage: Stage<'a, B>,
    /// Its optimizer.
    pub optimizer: Optimizer<B>,
    /// `[m]`: the weighted loss of each microbatch, on the last stage.
    pub losses: Tensor<B::Buffer>,
    communicator: &'a dyn Communicator<B::Buffer>,
    neighbours: Neighbours,
    /// Activations of the microbatches in flight: microbatch i has set `i % in_flight`.
    in_flight: Vec<Activations<B>>,
    /// What a microbatch keeps between the halves of its backward: as `in_flight`.
    deferred: Vec<Deferred<B>>,
    /// Whether a message is this tensor rank's part of what is handed on.
    scattered: bool,
}

impl<'a, B: Backend> ModelChunk<'a, B> {
    /// Chunk number `index` of a rank that runs `program`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        communicator: &'a dyn Communicator<B::Buffer>,
        tensor: Vec<usize>,
        neighbours: Neighbours,
        config: &ChunkConfig<'_>,
        (program, index): (&[Instruction], usize),
        scratch: Arc<Scratch<B>>,
    ) -> Result<Self> {
        let tensor = TensorGroup::new(communicator, Group::new(GroupKind::Tensor, tensor));
        let shard = config.shard;
        let stage = Stage::new(backend, tensor, config.model, shard, config.options, scratch)?;
        let in_flight = (0..max_in_flight(program, index)).map(|_| stage.activations());
        let deferred = (0..max_deferred(program, index)).map(|_| stage.deferred());
        let losses = Shape::new(&[config.microbatches]);
        Ok(Self {
            optimizer: Optimizer::new(backend, config.optimizer, stage.parameters(), config.share)?,
            losses: backend.alloc(Class::Workspace, DType::F32, losses)?,
            in_flight: in_flight.collect::<Result<_>>()?,
            deferred: deferred.collect::<Result<_>>()?,
            scattered: config.scatter_gather && !shard.sequence_parallel && shard.tensor_size > 1,
            communicator,
            neighbours,
            stage,
        })
    }

    /// The activations of a microbatch.
    pub fn kept(&self, microbatch: usize) -> &Activations<B> {
        &self.in_flight[microbatch % self.in_flight.len()]
    }

    /// What a microbatch keeps between the halves of its backward.
    pub fn deferred(&self, microbatch: usize) -> &Deferred<B> {
        &self.deferred[microbatch % self.deferred.len()]
    }

    /// `[1]`: where a microbatch's loss goes.
    ///
    /// # Errors
    /// None, for a microbatch of the step.
    pub fn loss(&self, microbatch: usize) -> Result<View<'_, B::Buffer>> {
        self.losses.view().rows(microbatch, 1)
    }

    /// Receives a microbatch's input; nothing on the first stage.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn recv_forward(&self, microbatch: usize) -> Result<()> {
        match self.neighbours.previous {
            Some(rank) => self.recv(rank, Lane::Forward, self.kept(microbatch).input()),
            None => Ok(()),
        }
    }

    /// Whether it hands something on in this direction.
    pub fn sends(&self, lane: Lane) -> bool {
        match lane {
            Lane::Forward => self.neighbours.next.is_some(),
            Lane::Backward => self.neighbours.previous.is_some(),
        }
    }

    /// Hands on the output of the last forward; nothing on the last stage.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn send_forward(&self) -> Result<()> {
        match self.neighbours.next {
            Some(rank) => self.send(rank, Lane::Forward, self.stage.output()),
            None => Ok(()),
        }
    }

    /// Receives the gradient of a microbatch's output; nothing on the last stage.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn recv_backward(&self) -> Result<()> {
        match self.neighbours.next {
            Some(rank) => self.recv(rank, Lane::Backward, self.stage.gradient()),
            None => Ok(()),
        }
    }

    /// Hands back the gradient of the input; nothing on the first stage.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn send_backward(&self) -> Result<()> {
        match self.neighbours.previous {
            Some(rank) => self.send(rank, Lane::Backward, self.stage.gradient()),
            None => Ok(()),
        }
    }

    /// Makes room for the messages that may be on their way from here at once: by direction, as the schedule has them.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn reserve(&self, lane: Lane, messages: usize) -> Result<()> {
        let (to, data) = match lane {
            Lane::Forward => (self.neighbours.next, self.stage.output()),
            Lane::Backward => (self.neighbours.previous, self.stage.gradient()),
        };
        let Some(to) = to else { return Ok(()) };
        let data = if self.scattered { self.part(data)? } else { data };
        self.communicator.reserve(to, messages, data.dtype(), data.len())
    }

    /// All tensor ranks have the same to send: each sends its part (NAR, section 4.1).
    fn send(&self, to: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        let data = if self.scattered { self.part(data)? } else { data };
        self.communicator.send(to, lane, data)
    }

    /// The parts are gathered on the fast side of the wire.
    fn recv(&self, from: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        if !self.scattered {
            return self.communicator.recv(from, lane, data);
        }
        let part = self.part(data)?;
        self.communicator.recv(from, lane, part)?;
        self.stage.tensor().gather(part, data)
    }

    /// This tensor rank's part of `[t, h]`.
    fn part<'v>(&self, data: View<'v, B::Buffer>) -> Result<View<'v, B::Buffer>> {
        let shard = self.stage.shard();
        let len = data.len() / shard.tensor_size;
        data.reshape([data.len()])?.rows(shard.tensor_rank * len, len)
    }
}
