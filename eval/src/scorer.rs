//! What evaluation asks of a model: log-likelihoods of continuations.

/// One request: the log-likelihood of `continuation` after `context` (lm-evaluation-harness's convention).
///
/// Blanks at the context's end belong to the continuation, a sequence that is too long loses its beginning, and an empty context is one end-of-text
/// token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What comes before.
    pub context: String,
    /// What is scored.
    pub continuation: String,
}

/// Its answer. `log_likelihood` in nats, summed over the continuation's `tokens`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Natural logarithm of the continuation's probability.
    pub log_likelihood: f64,
    /// Tokens of the continuation.
    pub tokens: usize,
    /// Whether every token of the continuation is the most probable one in its place.
    pub is_greedy: bool,
}

/// Who knows how long texts are to a model.
pub trait Counter {
    /// What can go wrong.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Text to a number of tokens, for the truncation of examples.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    fn count_tokens(&self, text: &str) -> Result<usize, Self::Error>;

    /// Tokens of the longest sequence.
    fn max_tokens(&self) -> usize;
}

/// A model that scores.
pub trait Scorer: Counter {
    /// Answers in the order of `requests`; calls `done(index, answer)` for each as soon as it is known, so that results survive an interruption.
    /// Batches, their order and shared prefixes are the scorer's affair.
    ///
    /// # Errors
    /// As the scorer has them; what was `done` before stays valid.
    fn score(
        &mut self,
        requests: &[Request],
        done: &mut dyn FnMut(usize, &Scored),
    ) -> Result<(), Self::Error>;
}
