//! The thread that has the model.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::metrics::Metrics;
use crate::Result;
use crate::inference::batcher::{Batcher, Event, Prompt};
use crate::inference::step::{Capacity, Model};

/// Prompts of one request, and where their events go, each with the prompt's place among them.
struct Work {
    prompts: Vec<Prompt>,
    events: UnboundedSender<(usize, Event)>,
}

/// The other thread's end.
#[derive(Clone)]
pub struct Handle {
    work: Sender<Work>,
    /// Sequences that wait or are worked on.
    taken: Arc<AtomicUsize>,
    most: usize,
    stop: Arc<AtomicBool>,
    /// What the model can take.
    pub capacity: Capacity,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Handle {
    /// Hands prompts over, all or none. Their events come until the channel is closed from the other end. As many as there are tokens at the most, so that a
    /// reader who is slow costs no more than its text.
    ///
    /// # Errors
    /// There is no room for so many.
    pub fn submit(
        &self,
        prompts: Vec<Prompt>,
        events: UnboundedSender<(usize, Event)>,
    ) -> std::result::Result<(), Full> {
        let count = prompts.len();
        let room = |taken: usize| taken.checked_add(count).filter(|&sum| sum <= self.most);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).map_err(|_| Full)?;
        self.work.send(Work { prompts, events }).map_err(|_| Full)
    }

    /// Sequences at the most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Ends everything with the next step.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The model's end.
pub struct Engine {
    work: Receiver<Work>,
    taken: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// Whose a sequence is.
struct Owner {
    place: usize,
    events: UnboundedSender<(usize, Event)>,
}

impl Engine {
    /// Both ends, with room for `queue` sequences beside those that the model works on.
    pub fn new(capacity: Capacity, queue: usize, metrics: Arc<Metrics>) -> (Self, Handle) {
        let (sender, work) = channel();
        let (taken, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let most = capacity.slots + queue;
        let handle =
            Handle { work: sender, taken: Arc::clone(&taken), most, stop: Arc::clone(&stop), capacity };
        (Self { work, taken, stop, metrics }, handle)
    }

    /// Works until every handle is gone, or one says stop.
    ///
    /// # Errors
    /// Those of the model.
    pub fn run(self, model: &mut dyn Model) -> Result<()> {
        /// Other ranks wait for a word no longer than minutes.
        const QUIET: Duration = Duration::from_secs(20);
        let mut batcher = Batcher::new(model);
        let mut owners: HashMap<u64, Owner> = HashMap::new();
        while !self.stop.load(Ordering::Acquire) {
            if batcher.is_empty() {
                match self.work.recv_timeout(QUIET) {
                    Ok(work) => self.take(work, &mut batcher, &mut owners)?,
                    Err(RecvTimeoutError::Timeout) => model.idle()?,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            while let Ok(work) = self.work.try_recv() {
                self.take(work, &mut batcher, &mut owners)?;
            }
            // Who has gone away needs no more.
            let gone: Vec<u64> =
                owners.iter().filter(|(_, owner)| owner.events.is_closed()).map(|(&id, _)| id).collect();
            for id in gone {
                batcher.cancel(id);
                self.done(id, &mut owners);
                self.metrics.abandoned.fetch_add(1, Ordering::Relaxed);
            }
            self.tell_load(&batcher);
            if batcher.is_empty() {
                continue;
            }
            for event in batcher.step(model)? {
                let (Event::Echoed { id, .. } | Event::Token { id, .. } | Event::Finished { id, .. }) = event;
                let last = matches!(event, Event::Finished { .. });
                if matches!(event, Event::Token { .. }) {
                    self.metrics.new_tokens.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(owner) = owners.get(&id) {
                    // That it is closed is seen before the next step.
                    let _ = owner.events.send((owner.place, event));
                }
                if last {
                    self.done(id, &mut owners);
                }
            }
            self.metrics.steps.fetch_add(1, Ordering::Relaxed);
            self.tell_load(&batcher);
        }
        Ok(())
    }

    fn tell_load(&self, batcher: &Batcher) {
        let (active, waiting) = batcher.load();
        self.metrics.active.store(active as u64, Ordering::Relaxed);
        self.metrics.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    fn take(&self, work: Work, batcher: &mut Batcher, owners: &mut HashMap<u64, Owner>) -> Result<()> {
        for (place, prompt) in work.prompts.into_iter().enumerate() {
            self.metrics.prompt_tokens.fetch_add(prompt.tokens.len() as u64, Ordering::Relaxed);
            let id = batcher.add(prompt)?;
            owners.insert(id, Owner { place, events: work.events.clone() });
        }
        Ok(())
    }

    fn done(&self, id: u64, owners: &mut HashMap<u64, Owner>) {
        if owners.remove(&id).is_some() {
            self.taken.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
