//! What the ranks do together: a step adds tokens to sequences, and answers for some of them.

use model::{Place, Score};

use crate::Result;

/// What a model can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences at once.
    pub slots: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Answers of a step.
    pub rows: usize,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Steps on their way at once that keep every pipeline stage busy.
    pub in_flight: usize,
}

/// Tokens to add, and what is asked about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Where each stands.
    pub places: Vec<Place>,
    /// Which of them are asked about.
    pub rows: Vec<u32>,
    /// What is asked.
    pub want: Want,
}

/// What is asked about the rows of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// The logits of the next token.
    #[default]
    Logits,
    /// What the model thinks of these next tokens, one a row.
    Scores(Vec<u32>),
}

/// The answer, row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `[rows, vocabulary]`.
    Logits(Vec<f32>),
    /// One a row.
    Scores(Vec<Score>),
}

/// A model, however many ranks it takes, as the one that has the say sees it.
pub trait Model {
    /// What it can take.
    fn capacity(&self) -> Capacity;

    /// Begins a step, behind all that were begun before.
    ///
    /// # Errors
    /// Those of the ranks.
    fn submit(&mut self, step: &Step) -> Result<()>;

    /// The answer to the oldest step that was not collected.
    ///
    /// # Errors
    /// Those of the ranks; no step is on its way.
    fn collect(&mut self) -> Result<Answer>;

    /// Says that there is nothing to do, at least twice a minute, so that the other ranks go on waiting.
    ///
    /// # Errors
    /// Those of the ranks.
    fn idle(&mut self) -> Result<()>;
}
