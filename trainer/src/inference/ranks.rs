//! The ranks of a model in use. The first one decides; before each step it tells the others, which do their part and wait for the next word.
//!
//! Where a model is evaluated while it is trained, these are the training's own ranks, and each replica has a first one ([`Rank::leads`]). What the replicas have to tell each other goes from
//! one of them to the others ([`Rank::exchange`]).

use std::collections::VecDeque;
use std::sync::Mutex;

use backend::{Backend, Class, Communicator, DType, Group, GroupKind, Lane, Shape, Tensor};
use model::{Decoder, DecoderOptions, Place, Score, TensorGroup};

use super::step::{Answer, Capacity, Model, Step, Want};
use super::{Loaded, ModelArgs};
use crate::device::Device;
use crate::launch::{Job, Process, World, launch};
use crate::layout::{Coordinates, Layout};
use crate::{Error, Result};

/// What the first rank says first: kind, tokens, rows, and whether scores are wanted.
const WORDS: usize = 4;
/// Words that a replica tells the others at once.
pub const EXCHANGED: usize = 2048;
/// Kinds: the end, a step, or nothing to do.
const STOP: u32 = 0;
const STEP: u32 = 1;
const IDLE: u32 = 2;

/// Runs `work` with the model of `loaded` on the ranks that `args` ask for; what it gives is there on rank 0's process, and `None` on others.
///
/// # Errors
/// Those of `work`, of the device and of the ranks.
pub fn run<R: Send>(
    loaded: &Loaded,
    args: &ModelArgs,
    work: impl FnOnce(&mut dyn Model) -> Result<R> + Send,
) -> Result<Option<R>> {
    let work = Mutex::new(Some(work));
    let job = Use { loaded, work: &work };
    let device = crate::device::choose(args.backend)?.0;
    let world_size = loaded.layout.world_size();
    match Process::join(&loaded.identity())? {
        None => launch(&device, world_size, job),
        Some(process) if process.world_size() == world_size => {
            process.launch(&device, loaded.options.partial != loaded.options.dtype, job)
        }
        Some(process) => Err(Error::user(format!(
            "{} processes were started for a layout of {world_size} ranks",
            process.world_size()
        ))
        .remedy("start as many as --tensor times --pipeline")),
    }
}

/// As [`run`] on a device that is there, all ranks in this process.
///
/// # Errors
/// Those of `work`, of the device and of the ranks.
pub fn on<R: Send>(
    device: &Device,
    loaded: &Loaded,
    work: impl FnOnce(&mut dyn Model) -> Result<R> + Send,
) -> Result<Option<R>> {
    let work = Mutex::new(Some(work));
    launch(device, loaded.layout.world_size(), Use { loaded, work: &work })
}

struct Use<'a, W> {
    loaded: &'a Loaded,
    work: &'a Mutex<Option<W>>,
}

impl<R: Send, W: FnOnce(&mut dyn Model) -> Result<R> + Send> Job for Use<'_, W> {
    type Output = Option<R>;

    fn run<B: Backend>(self, world: World<B>) -> Result<Option<R>> {
        let results = world.run(|backend, communicator| -> Result<Option<R>> {
            let mut rank = loaded_rank(backend, communicator, self.loaded)?;
            if !rank.leads() {
                rank.follow()?;
                return Ok(None);
            }
            let work = self.work.lock().ok().and_then(|mut work| work.take());
            let work = work.ok_or_else(|| Error::other("two ranks have the say"))?;
            let result = work(&mut rank)?;
            rank.end()?;
            Ok(Some(result))
        })?;
        Ok(results.into_iter().flatten().next())
    }
}

/// A rank with the weights of `loaded`.
fn loaded_rank<'a, B: Backend>(
    backend: &'a B,
    communicator: &'a dyn Communicator<B::Buffer>,
    loaded: &Loaded,
) -> Result<Rank<'a, B>> {
    let (layout, options, rank) = (loaded.layout, loaded.options, communicator.rank());
    let at = layout.coordinates(rank);
    let group = Group::new(GroupKind::Tensor, layout.tensor_group(rank));
    let tensor = TensorGroup::new(communicator, group);
    let decoder = Decoder::new(backend, tensor, loaded.model(), &loaded.shard(rank)?, options)?;
    loaded.fill(backend, decoder.parameters())?;
    let beside = |pp: Option<usize>| {
        pp.filter(|&pp| pp < layout.pp()).map(|pp| layout.rank_of(Coordinates { pp, ..at }))
    };
    let part = Part { decoder, previous: beside(at.pp.checked_sub(1)), next: beside(at.pp.checked_add(1)) };
    Ok(Rank::new(backend, communicator, layout, options, vec![part], options.vocabulary.max(2))?)
}

/// A virtual stage of a rank, between its neighbours.
pub struct Part<'a, B: Backend> {
    /// Its layers.
    pub decoder: Decoder<'a, B>,
    /// World rank of the virtual stage before.
    pub previous: Option<usize>,
    /// World rank of the virtual stage after.
    pub next: Option<usize>,
}

/// One rank.
pub struct Rank<'a, B: Backend> {
    backend: &'a B,
    communicator: &'a dyn Communicator<B::Buffer>,
    /// First to last in the model.
    parts: Vec<Part<'a, B>>,
    capacity: Capacity,
    /// The ranks of the replica, and the one of them that has the say.
    members: Group,
    first: usize,
    /// Where answers come from, and go to, if the first rank does not make them.
    answers: Option<(Tensor<B::Buffer>, usize)>,
    /// `[WORDS]`, and the tokens, places, rows and targets of a step: what the first rank says.
    header: Tensor<B::Buffer>,
    body: Tensor<B::Buffer>,
    exchange: Option<Exchange<B>>,
    /// Answers that are there, or the rows and kinds of those that will come.
    collected: VecDeque<Answer>,
    expected: VecDeque<(usize, bool)>,
}

/// What the first ranks of several replicas tell each other.
struct Exchange<B: Backend> {
    group: Group,
    /// `[EXCHANGED]`, and one behind the other `[dp, EXCHANGED]`.
    own: Tensor<B::Buffer>,
    all: Tensor<B::Buffer>,
}

impl<'a, B: Backend> Rank<'a, B> {
    /// The rank that `communicator` speaks for, with its parts of the model; a row of an answer has at most `width` numbers. Whatever it needs is allocated here.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &'a B,
        communicator: &'a dyn Communicator<B::Buffer>,
        layout: Layout,
        options: DecoderOptions,
        parts: Vec<Part<'a, B>>,
        width: usize,
    ) -> backend::Result<Self> {
        let rank = communicator.rank();
        let at = layout.coordinates(rank);
        let of = |tp, pp| layout.rank_of(Coordinates { tp, pp, ..at });
        let (first, last) = (of(0, 0), of(0, layout.pp() - 1));
        let all = (0..layout.pp()).flat_map(|pp| (0..layout.tp()).map(move |tp| of(tp, pp)));
        let alloc = |dtype, len| backend.alloc(Class::Activations, dtype, Shape::new(&[len]));
        let speaks = last != first && (rank == first || rank == last);
        let answers = speaks.then(|| alloc(DType::F32, options.rows * width)).transpose()?;
        // With several virtual stages a step is through before the next one begins.
        let in_flight = if parts.len() > 1 { 1 } else { layout.pp() };
        for part in &parts {
            let Some(to) = part.next else { continue };
            for stream in part.decoder.streams() {
                communicator.reserve(to, in_flight, stream.dtype(), stream.len())?;
            }
        }
        if speaks && rank == last {
            communicator.reserve(first, in_flight, DType::F32, 2 * options.rows)?;
        }
        let exchange = (layout.dp() > 1 && rank == first).then(|| {
            Ok::<_, backend::Error>(Exchange {
                group: Group::new(GroupKind::Data, layout.data_group(rank)),
                own: alloc(DType::U32, EXCHANGED)?,
                all: alloc(DType::U32, layout.dp() * EXCHANGED)?,
            })
        });
        Ok(Self {
            members: Group::new(GroupKind::World, all.collect::<Vec<_>>()),
            first,
            answers: answers.map(|room| (room, last)),
            header: alloc(DType::U32, WORDS)?,
            body: alloc(DType::U32, 5 * options.tokens + 2 * options.rows)?,
            exchange: exchange.transpose()?,
            capacity: Capacity {
                slots: options.slots,
                length: options.length,
                tokens: options.tokens,
                rows: options.rows,
                vocabulary: options.vocabulary,
                in_flight,
            },
            collected: VecDeque::new(),
            expected: VecDeque::new(),
            parts,
            communicator,
            backend,
        })
    }

    /// Whether it is the one of its replica that has the say; the others [`follow`](Self::follow).
    pub fn leads(&self) -> bool {
        self.communicator.rank() == self.first
    }

    /// Which replica it belongs to, and how many there are, to a rank that leads.
    pub fn replica(&self) -> (usize, usize) {
        let of = |exchange: &Exchange<B>| Some((exchange.group.position(self.first)?, exchange.group.size()));
        self.exchange.as_ref().and_then(of).unwrap_or((0, 1))
    }

    /// The first rank's last word: the others go on with something else.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn end(&self) -> Result<()> {
        self.say(&[STOP, 0, 0, 0])
    }

    /// The words of each replica's first rank, in their order; called by all of these. At most [`EXCHANGED`].
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn exchange(&self, words: &[u32]) -> Result<Vec<Vec<u32>>> {
        let Some(Exchange { group, own, all }) = &self.exchange else { return Ok(vec![words.to_vec()]) };
        let mut message = words.to_vec();
        message.resize(EXCHANGED, 0);
        self.backend.write(own.view(), bytemuck::cast_slice(&message))?;
        self.communicator.all_gather(group, own.view(), all.view())?;
        let mut told = vec![0_u32; all.len()];
        self.backend.read(all.view(), bytemuck::cast_slice_mut(&mut told))?;
        Ok(told.chunks(EXCHANGED).map(<[u32]>::to_vec).collect())
    }

    /// The first rank's word to all others.
    fn say(&self, words: &[u32; WORDS]) -> Result<()> {
        if self.members.size() > 1 {
            self.backend.write(self.header.view(), bytemuck::cast_slice(words))?;
            self.communicator.broadcast(&self.members, self.first, self.header.view())?;
        }
        Ok(())
    }

    /// Does what the first rank says until it says that all is done.
    ///
    /// # Errors
    /// Those of the backend and the communicator.
    pub fn follow(&mut self) -> Result<()> {
        loop {
            let mut words = [0_u32; WORDS];
            self.communicator.broadcast(&self.members, self.first, self.header.view())?;
            self.backend.read(self.header.view(), bytemuck::cast_slice_mut(&mut words))?;
            let [kind, tokens, rows, scores] = words;
            match kind {
                STOP => return Ok(()),
                STEP => {
                    let (t, r) = (tokens as usize, rows as usize);
                    let body = self.body.view().rows(0, 5 * t + 2 * r)?;
                    self.communicator.broadcast(&self.members, self.first, body)?;
                    let mut all = vec![0_u32; body.len()];
                    self.backend.read(body, bytemuck::cast_slice_mut(&mut all))?;
                    let (tokens, rest) = all.split_at(t);
                    let (places, rest) = rest.split_at(4 * t);
                    let (rows, targets) = rest.split_at(r);
                    let want = if scores > 0 { Want::Scores(targets.to_vec()) } else { Want::Logits };
                    let places = places.as_chunks::<4>().0.to_vec();
                    self.perform(&Step { tokens: tokens.to_vec(), places, rows: rows.to_vec(), want })?;
                }
                _ => {}
            }
        }
    }

    /// This rank's part of a step.
    fn perform(&mut self, step: &Step) -> Result<()> {
        let (t, places): (usize, &[Place]) = (step.tokens.len(), &step.places);
        for Part { decoder, previous, next } in &self.parts {
            if let Some(from) = *previous {
                self.communicator.recv(from, Lane::Forward, decoder.stream(t))?;
            }
            decoder.forward(&step.tokens, places)?;
            if let Some(to) = *next {
                self.communicator.send(to, Lane::Forward, decoder.stream(t))?;
            }
        }
        let last = self.parts.last().filter(|part| part.next.is_none());
        let Some(Part { decoder, .. }) = last.filter(|_| !step.rows.is_empty()) else { return Ok(()) };
        let answer = match &step.want {
            Want::Logits => Answer::Logits(decoder.logits(t, &step.rows)?),
            Want::Scores(targets) => Answer::Scores(decoder.scores(t, &step.rows, targets)?),
        };
        match &self.answers {
            Some((room, _)) => {
                let mut values = flattened(&answer);
                if let Answer::Scores(_) = answer {
                    values.resize(2 * self.capacity.rows, 0.0);
                }
                let message = room.view().rows(0, values.len())?;
                self.backend.write(message, bytemuck::cast_slice(&values))?;
                self.communicator.send(self.first, Lane::Backward, message)?;
            }
            None if self.leads() => self.collected.push_back(answer),
            None => {}
        }
        Ok(())
    }
}

/// An answer as numbers.
fn flattened(answer: &Answer) -> Vec<f32> {
    match answer {
        Answer::Logits(logits) => logits.clone(),
        Answer::Scores(scores) => scores
            .iter()
            .flat_map(|score| [score.log_likelihood, f32::from(u8::from(score.is_greedy))])
            .collect(),
    }
}

impl<B: Backend> Model for Rank<'_, B> {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        let (scores, none) = match &step.want {
            Want::Logits => (false, vec![0; step.rows.len()]),
            Want::Scores(targets) => (true, targets.clone()),
        };
        if self.members.size() > 1 {
            self.say(&[STEP, step.tokens.len() as u32, step.rows.len() as u32, u32::from(scores)])?;
            let all = [&step.tokens[..], step.places.as_flattened(), &step.rows, &none].concat();
            let body = self.body.view().rows(0, all.len())?;
            self.backend.write(body, bytemuck::cast_slice(&all))?;
            self.communicator.broadcast(&self.members, self.first, body)?;
        }
        self.expected.push_back((step.rows.len(), scores));
        self.perform(step)
    }

    fn collect(&mut self) -> Result<Answer> {
        let (rows, scores) =
            self.expected.pop_front().ok_or_else(|| Error::other("no step is on its way"))?;
        if rows == 0 {
            return Ok(if scores { Answer::Scores(Vec::new()) } else { Answer::Logits(Vec::new()) });
        }
        let Some((room, from)) = &self.answers else {
            return self.collected.pop_front().ok_or_else(|| Error::other("a step has no answer"));
        };
        // Scores come in a message of one length, whatever the step asked.
        let len = if scores { 2 * self.capacity.rows } else { rows * self.capacity.vocabulary };
        let message = room.view().rows(0, len)?;
        self.communicator.recv(*from, Lane::Backward, message)?;
        let mut values = vec![0.0_f32; message.len()];
        self.backend.read(message, bytemuck::cast_slice_mut(&mut values))?;
        let score = |pair: &[f32; 2]| Score { log_likelihood: pair[0], is_greedy: pair[1] > 0.5 };
        Ok(match scores {
            false => Answer::Logits(values),
            true => Answer::Scores(values.as_chunks::<2>().0[..rows].iter().map(score).collect()),
        })
    }

    fn idle(&mut self) -> Result<()> {
        self.say(&[IDLE, 0, 0, 0])
    }
}
