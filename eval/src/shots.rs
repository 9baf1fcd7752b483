//! Examples before a question: which, in which order, and how many of them fit.
//!
//! The draw is the harness's default sampler: Python's generator, seeded once a task (1234 unless told), one draw a document in the documents'
//! order. Where the harness excludes a document as its own example, one more is drawn and equal ones are left out.

use std::fmt;
use std::str::FromStr;

use crate::documents::{Document, Set};
use crate::python::random::Random;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::scorer::Counter;
use crate::tasks::Task;
use crate::{Error, Result};

/// The harness's seed of examples.
pub const SEED: u32 = 1234;

/// How many examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shots {
    /// So many.
    Count(usize),
    /// As many as MT-NLG's few-shot setting has for the task.
    Few,
}

impl Shots {
    /// The number for a task.
    #[must_use]
    pub fn of(self, task: &Task) -> usize {
        match self {
            Shots::Count(count) => count,
            Shots::Few => task.few,
        }
    }
}

impl FromStr for Shots {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "few" => Ok(Shots::Few),
            number => number
                .parse()
                .ok()
                .filter(|count| *count <= 1000)
                .map(Shots::Count)
                .ok_or_else(|| format!("{text:?} is no number of examples: give 0 to 1000, or few")),
        }
    }
}

impl fmt::Display for Shots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shots::Count(count) => write!(f, "{count}"),
            Shots::Few => f.write_str("few"),
        }
    }
}

/// In a configuration: a whole number, or `few`.
impl Serialize for Shots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shots::Count(count) => serializer.serialize_u64(*count as u64),
            Shots::Few => serializer.serialize_str("few"),
        }
    }
}

impl<'de> Deserialize<'de> for Shots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Shots;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of examples, 0 to 1000, or \"few\"")
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Shots, E> {
                self.visit_str(&count.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Shots, E> {
                self.visit_str(&count.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Shots, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Draws the examples of document after document.
#[derive(Debug)]
pub struct Sampler<'a> {
    task: &'static Task,
    pool: &'a Set,
    shots: usize,
    random: Random,
}

impl<'a> Sampler<'a> {
    /// A sampler of `shots` examples out of `pool`.
    ///
    /// # Errors
    /// The pool is too small.
    pub fn new(task: &'static Task, pool: &'a Set, shots: usize, seed: u32) -> Result<Self> {
        let needed = if task.own_example { shots } else { shots + 1 };
        let found = pool.documents.len();
        if found < needed {
            return Err(Error::TooFewExamples {
                task: task.name,
                shots,
                needed,
                found,
                path: pool.path.clone(),
            });
        }
        Ok(Self { task, pool, shots, random: Random::new(seed) })
    }

    /// Indices into the pool of the next document's examples, in their order.
    ///
    /// # Errors
    /// So many documents of the pool are the document itself that the others are too few.
    pub fn draw(&mut self, document: &Document) -> Result<Vec<usize>> {
        let all = self.pool.documents.len();
        if self.task.own_example {
            return Ok(self.random.sample(all, self.shots));
        }
        let other = |i: &usize| self.pool.documents[*i].source != document.source;
        let mut drawn = self.random.sample(all, self.shots + 1);
        drawn.retain(other);
        drawn.truncate(self.shots);
        if drawn.len() < self.shots {
            let others: Vec<usize> = (0..all).filter(other).collect();
            if others.len() < self.shots {
                return Err(Error::TooFewExamples {
                    task: self.task.name,
                    shots: self.shots,
                    needed: self.shots,
                    found: others.len(),
                    path: self.pool.path.clone(),
                });
            }
            drawn = self.random.sample(others.len(), self.shots).into_iter().map(|i| others[i]).collect();
        }
        Ok(drawn)
    }
}

/// How many of `examples` go, from the first on, so that the longest of the document's requests fits into the model's sequence.
///
/// # Errors
/// As [`Counter::count_tokens`].
pub fn too_many<C: Counter>(counter: &C, examples: &[&str], document: &Document) -> Result<usize, C::Error> {
    let tokens = |dropped: usize| -> Result<usize, C::Error> {
        let kept = examples[dropped..].concat();
        let mut most = 0;
        for request in document.requests(&kept) {
            most = most.max(counter.count_tokens(&format!("{}{}", request.context, request.continuation))?);
        }
        Ok(most)
    };
    let room = counter.max_tokens();
    if tokens(0)? <= room {
        return Ok(0);
    }
    // The fewest that fit, by bisection: a longer text has more tokens, but for a few at the seams.
    let (mut over, mut fits) = (0, examples.len());
    while fits - over > 1 {
        let middle = over + (fits - over) / 2;
        match tokens(middle)? <= room {
            true => fits = middle,
            false => over = middle,
        }
    }
    Ok(fits)
}
