//! Continuous batching: prompts come and go at any step; each step takes the next token of every sequence that is being written, and fills up with what prompts
//! have not been read yet.

use std::collections::VecDeque;

use super::sampling::{Sampling, log_sum_exp};
use super::step::{Answer, Model, Step, Want};
use crate::{Error, Result};

/// What is to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens, at least one; at most as many as a sequence may have.
    pub tokens: Vec<u32>,
    /// Tokens to add at the most.
    pub most: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Number of the prompt in the draws.
    pub index: u64,
    /// The token that ends a text; it is not part of it.
    pub end: Option<u32>,
    /// How many of the likeliest tokens are told beside each token's log-probability; `None` tells nothing.
    pub likelihoods: Option<usize>,
    /// Whether the prompt's own tokens are told with theirs.
    pub echo: bool,
}

/// A token's log-probability in the model's own distribution, and the likeliest tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Its own, in nats.
    pub log_probability: f64,
    /// The likeliest, likeliest first.
    pub top: Vec<(u32, f64)>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    End,
    /// It is as long as was asked for, or as a sequence can be.
    Length,
}

/// What became of a sequence in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token of the prompt, from the second on.
    Echoed {
        /// Whose.
        id: u64,
        /// Its likelihood.
        likelihood: Likelihood,
    },
    /// A new token.
    Token {
        /// Whose.
        id: u64,
        /// The token.
        token: u32,
        /// Its likelihood, where that is told.
        likelihood: Option<Likelihood>,
    },
    /// Nothing more comes.
    Finished {
        /// Of which.
        id: u64,
        /// Why.
        why: Finish,
    },
}

/// A sequence in a slot.
struct Sequence {
    id: u64,
    prompt: Prompt,
    /// The prompt's tokens and the new ones.
    tokens: Vec<u32>,
    /// How many of them the cache has.
    fed: usize,
    slot: u32,
}

impl Sequence {
    fn written(&self) -> usize {
        self.tokens.len() - self.prompt.tokens.len()
    }

    /// Whether the logits behind position `p` are asked for.
    fn asks(&self, p: usize) -> bool {
        match p + 1 == self.tokens.len() {
            true => self.prompt.most > 0,
            false => self.prompt.echo && self.prompt.likelihoods.is_some(),
        }
    }
}

/// The sequences of a model.
pub struct Batcher {
    waiting: VecDeque<(u64, Prompt)>,
    active: Vec<Sequence>,
    free: Vec<u32>,
    length: usize,
    next: u64,
}

impl Batcher {
    /// For a model of that capacity.
    pub fn new(model: &dyn Model) -> Self {
        let capacity = model.capacity();
        Self {
            waiting: VecDeque::new(),
            active: Vec::new(),
            free: (0..capacity.slots as u32).rev().collect(),
            length: capacity.length,
            next: 0,
        }
    }

    /// Takes a prompt on; its id is in the events that it causes.
    ///
    /// # Errors
    /// It is empty, or longer than a sequence may be.
    pub fn add(&mut self, prompt: Prompt) -> Result<u64> {
        let length = prompt.tokens.len();
        if length == 0 || length > self.length {
            return Err(Error::user(format!("a prompt of {length} tokens"))
                .remedy(format!("give at least one and at most {}", self.length)));
        }
        let id = self.next;
        self.next += 1;
        self.waiting.push_back((id, prompt));
        Ok(id)
    }

    /// Lets go of a sequence; no more events come of it.
    pub fn cancel(&mut self, id: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.let_go(|sequence| sequence.id == id);
    }

    /// Sequences that are being read or written, and those that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.active.len(), self.waiting.len())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    fn let_go(&mut self, which: impl Fn(&Sequence) -> bool) {
        let free = &mut self.free;
        self.active.retain(|sequence| {
            let goes = which(sequence);
            if goes {
                free.push(sequence.slot);
            }
            !goes
        });
    }

    /// One step of all sequences.
    ///
    /// # Errors
    /// Those of the model.
    pub fn step(&mut self, model: &mut dyn Model) -> Result<Vec<Event>> {
        while !self.waiting.is_empty() && !self.free.is_empty() {
            if let (Some((id, prompt)), Some(slot)) = (self.waiting.pop_front(), self.free.pop()) {
                self.active.push(Sequence { id, tokens: prompt.tokens.clone(), prompt, fed: 0, slot });
            }
        }
        let (step, asked) = self.compose(model);
        let mut events = Vec::new();
        if !step.tokens.is_empty() {
            model.submit(&step)?;
            let Answer::Logits(logits) = model.collect()? else {
                return Err(Error::other("scores where logits were asked for"));
            };
            let vocabulary = model.capacity().vocabulary;
            for (&(place, position), logits) in asked.iter().zip(logits.chunks_exact(vocabulary)) {
                self.answered(place, position, logits, &mut events);
            }
        }
        // What was to be read, and nothing more.
        for sequence in &self.active {
            if sequence.prompt.most == 0 && sequence.fed == sequence.tokens.len() {
                events.push(Event::Finished { id: sequence.id, why: Finish::Length });
            }
        }
        let finished =
            |id: u64| events.iter().any(|event| matches!(event, Event::Finished { id: of, .. } if *of == id));
        self.let_go(|sequence| finished(sequence.id));
        Ok(events)
    }

    /// The next step, and for each of its rows the sequence's place and the row's position there.
    fn compose(&mut self, model: &dyn Model) -> (Step, Vec<(usize, usize)>) {
        let capacity = model.capacity();
        let (mut step, mut asked) = (Step { want: Want::Logits, ..Step::default() }, Vec::new());
        // Those that are being written come first: nobody waits long for the next token because another one's prompt is long.
        let mut order: Vec<usize> = (0..self.active.len()).collect();
        order.sort_by_key(|&i| self.active[i].written() == 0);
        for i in order {
            let sequence = &mut self.active[i];
            while sequence.fed < sequence.tokens.len() && step.tokens.len() < capacity.tokens {
                let position = sequence.fed;
                if sequence.asks(position) {
                    if step.rows.len() == capacity.rows {
                        break;
                    }
                    step.rows.push(step.tokens.len() as u32);
                    asked.push((i, position));
                }
                step.tokens.push(sequence.tokens[position]);
                step.places.push([sequence.slot, position as u32, u32::MAX, 0]);
                sequence.fed += 1;
            }
        }
        (step, asked)
    }

    /// What follows from the logits behind `position` of a sequence.
    fn answered(&mut self, place: usize, position: usize, logits: &[f32], events: &mut Vec<Event>) {
        let sequence = &mut self.active[place];
        let id = sequence.id;
        let told = sequence.prompt.likelihoods;
        let likelihood = |token: u32| told.map(|count| Likelihood::of(logits, token, count));
        if let Some(&token) = sequence.tokens.get(position + 1) {
            events.extend(likelihood(token).map(|likelihood| Event::Echoed { id, likelihood }));
            return;
        }
        let Prompt { sampling, index, end, most, .. } = sequence.prompt;
        let token = sampling.draw(logits, &sequence.tokens, index, position + 1);
        if Some(token) == end {
            return events.push(Event::Finished { id, why: Finish::End });
        }
        sequence.tokens.push(token);
        events.push(Event::Token { id, token, likelihood: likelihood(token) });
        if sequence.written() == most || sequence.tokens.len() > self.length {
            events.push(Event::Finished { id, why: Finish::Length });
        }
    }
}

impl Likelihood {
    /// Of a token, with the `count` likeliest.
    fn of(logits: &[f32], token: u32, count: usize) -> Self {
        let total = log_sum_exp(logits);
        let log_probability = |token: u32| f64::from(logits[token as usize]) - total;
        let likelier = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let count = count.min(order.len());
        if count > 0 && count < order.len() {
            order.select_nth_unstable_by(count - 1, likelier);
        }
        order.truncate(count);
        order.sort_unstable_by(likelier);
        let top = order.into_iter().map(|token| (token, log_probability(token))).collect();
        Self { log_probability: log_probability(token), top }
    }
}
