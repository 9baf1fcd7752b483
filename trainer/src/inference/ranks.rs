//! The ranks of a model in use. Rank 0 decides; before each step it tells the others, which do their part and wait for the next word.

use std::collections::VecDeque;
use std::sync::Mutex;

use backend::{Backend, Class, Communicator, DType, Group, GroupKind, Lane, Shape, Tensor};
use model::{Decoder, Place, Score, TensorGroup};

use super::step::{Answer, Capacity, Model, Step, Want};
use super::{Loaded, ModelArgs};
use crate::device::Device;
use crate::launch::{Job, Process, World, launch};
use crate::layout::Coordinates;
use crate::{Error, Result};

/// What rank 0 says first: kind, tokens, rows, and whether scores are wanted.
const WORDS: usize = 4;
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
            let mut rank = Rank::new(backend, communicator, self.loaded)?;
            if communicator.rank() > 0 {
                rank.follow()?;
                return Ok(None);
            }
            let work = self.work.lock().ok().and_then(|mut work| work.take());
            let work = work.ok_or_else(|| Error::other("two ranks have the say"))?;
            let result = work(&mut rank)?;
            rank.say(&[STOP, 0, 0, 0])?;
            Ok(Some(result))
        })?;
        Ok(results.into_iter().flatten().next())
    }
}

/// One rank.
struct Rank<'a, B: Backend> {
    backend: &'a B,
    communicator: &'a dyn Communicator<B::Buffer>,
    decoder: Decoder<'a, B>,
    capacity: Capacity,
    world: Group,
    previous: Option<usize>,
    next: Option<usize>,
    /// Where answers come from, and go to, if the first stage is not the last.
    answers: Option<(Tensor<B::Buffer>, usize)>,
    /// `[WORDS]`, and the tokens, places, rows and targets of a step: what rank 0 says.
    header: Tensor<B::Buffer>,
    body: Tensor<B::Buffer>,
    /// Answers that are there, or the rows and kinds of those that will come.
    collected: VecDeque<Answer>,
    expected: VecDeque<(usize, bool)>,
}

impl<'a, B: Backend> Rank<'a, B> {
    fn new(backend: &'a B, communicator: &'a dyn Communicator<B::Buffer>, loaded: &Loaded) -> Result<Self> {
        let (layout, options, rank) = (loaded.layout, loaded.options, communicator.rank());
        let at = layout.coordinates(rank);
        let group = Group::new(GroupKind::Tensor, layout.tensor_group(rank));
        let tensor = TensorGroup::new(communicator, group);
        let decoder = Decoder::new(backend, tensor, loaded.model(), &loaded.shard(rank)?, options)?;
        loaded.fill(backend, decoder.parameters())?;
        let beside = |pp: Option<usize>| {
            pp.filter(|&pp| pp < layout.pp()).map(|pp| layout.rank_of(Coordinates { pp, ..at }))
        };
        let last = layout.rank_of(Coordinates { pp: layout.pp() - 1, tp: 0, dp: 0 });
        let alloc = |dtype, len| backend.alloc(Class::Activations, dtype, Shape::new(&[len]));
        let speaks = last != 0 && (rank == 0 || rank == last);
        let room = || alloc(DType::F32, options.rows * options.vocabulary.max(2));
        Ok(Self {
            world: Group::new(GroupKind::World, layout.world_group()),
            previous: beside(at.pp.checked_sub(1)),
            next: beside(at.pp.checked_add(1)),
            answers: speaks.then(|| Ok::<_, backend::Error>((room()?, last))).transpose()?,
            header: alloc(DType::U32, WORDS)?,
            body: alloc(DType::U32, 5 * options.tokens + 2 * options.rows)?,
            capacity: Capacity {
                slots: options.slots,
                length: options.length,
                tokens: options.tokens,
                rows: options.rows,
                vocabulary: options.vocabulary,
                in_flight: layout.pp(),
            },
            collected: VecDeque::new(),
            expected: VecDeque::new(),
            decoder,
            communicator,
            backend,
        })
    }

    /// Rank 0's word to all others.
    fn say(&self, words: &[u32; WORDS]) -> Result<()> {
        if self.communicator.world_size() > 1 {
            self.backend.write(self.header.view(), bytemuck::cast_slice(words))?;
            self.communicator.broadcast(&self.world, 0, self.header.view())?;
        }
        Ok(())
    }

    /// Does what rank 0 says until it says that all is done.
    fn follow(&mut self) -> Result<()> {
        loop {
            let mut words = [0_u32; WORDS];
            self.communicator.broadcast(&self.world, 0, self.header.view())?;
            self.backend.read(self.header.view(), bytemuck::cast_slice_mut(&mut words))?;
            let [kind, tokens, rows, scores] = words;
            match kind {
                STOP => return Ok(()),
                STEP => {
                    let (t, r) = (tokens as usize, rows as usize);
                    let body = self.body.view().rows(0, 5 * t + 2 * r)?;
                    self.communicator.broadcast(&self.world, 0, body)?;
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
        if let Some(from) = self.previous {
            self.communicator.recv(from, Lane::Forward, self.decoder.stream(t))?;
        }
        self.decoder.forward(&step.tokens, places)?;
        if let Some(to) = self.next {
            self.communicator.send(to, Lane::Forward, self.decoder.stream(t))?;
            return Ok(());
        }
        if step.rows.is_empty() {
            return Ok(());
        }
        let answer = match &step.want {
            Want::Logits => Answer::Logits(self.decoder.logits(t, &step.rows)?),
            Want::Scores(targets) => Answer::Scores(self.decoder.scores(t, &step.rows, targets)?),
        };
        match &self.answers {
            Some((room, _)) => {
                let values = flattened(&answer);
                let message = room.view().rows(0, values.len())?;
                self.backend.write(message, bytemuck::cast_slice(&values))?;
                self.communicator.send(0, Lane::Backward, message)?;
            }
            None if self.communicator.rank() == 0 => self.collected.push_back(answer),
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
        if self.communicator.world_size() > 1 {
            self.say(&[STEP, step.tokens.len() as u32, step.rows.len() as u32, u32::from(scores)])?;
            let all = [&step.tokens[..], step.places.as_flattened(), &step.rows, &none].concat();
            let body = self.body.view().rows(0, all.len())?;
            self.backend.write(body, bytemuck::cast_slice(&all))?;
            self.communicator.broadcast(&self.world, 0, body)?;
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
        let width = if scores { 2 } else { self.capacity.vocabulary };
        let message = room.view().rows(0, rows * width)?;
        self.communicator.recv(*from, Lane::Backward, message)?;
        let mut values = vec![0.0_f32; message.len()];
        self.backend.read(message, bytemuck::cast_slice_mut(&mut values))?;
        let score = |pair: &[f32; 2]| Score { log_likelihood: pair[0], is_greedy: pair[1] > 0.5 };
        Ok(match scores {
            false => Answer::Logits(values),
            true => Answer::Scores(values.as_chunks::<2>().0.iter().map(score).collect()),
        })
    }

    fn idle(&mut self) -> Result<()> {
        self.say(&[IDLE, 0, 0, 0])
    }
}
