//! Logistic regression on hashed words and pairs of words, trained by stochastic gradient descent: what fastText (Joulin et al. 2016) does without its hidden layer.
//!
//! A document is the set of its words and word pairs, each weighing `1 / sqrt(n)`. Training is sequential and shuffled by a seed: the same documents give the same
//! bits. Every tenth document of either side is held out and says how good the result is.

use crate::mt19937::RandomState;
use crate::words::{ngram_hash, words};
use std::fmt;

/// Features are hashed into `2^BITS`.
const BITS: u32 = 20;
/// Words of a document that are looked at.
const WORDS: usize = 512;
const EPOCHS: u32 = 5;
const RATE: f32 = 2.0;
/// One document of so many is held out.
const HELD_OUT: usize = 10;

/// A document as the classifier sees it: its features in ascending order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features(Vec<u32>);

impl Features {
    /// Of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let words: Vec<u64> = words(text).take(WORDS).map(|word| word.hash).collect();
        let hash = |words: &[u64]| (ngram_hash(words) >> (64 - BITS)) as u32;
        let mut features: Vec<u32> = words.chunks(1).chain(words.windows(2)).map(hash).collect();
        features.sort_unstable();
        features.dedup();
        Features(features)
    }

    /// Whether the text has no word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn weight(&self) -> f32 {
        1.0 / (self.0.len().max(1) as f32).sqrt()
    }
}

/// A trained classifier.
#[derive(Debug, Clone)]
pub struct Classifier {
    weights: Vec<f32>,
    bias: f32,
}

/// How it does on documents that it has not learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOut {
    /// Positives, and those of them that are recognised.
    pub positives: (usize, usize),
    /// Negatives, and those of them that are recognised.
    pub negatives: (usize, usize),
    /// Documents that were learned from.
    pub learned: usize,
}

impl HeldOut {
    /// Share of the held-out documents that are on their side.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        let all = self.positives.0 + self.negatives.0;
        (self.positives.1 + self.negatives.1) as f64 / all.max(1) as f64
    }
}

impl fmt::Display for HeldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldOut { positives, negatives, learned } = self;
        write!(
            f,
            "held-out accuracy {:.4} ({}/{} positives, {}/{} negatives; learned from {learned} documents)",
            self.accuracy(),
            positives.1,
            positives.0,
            negatives.1,
            negatives.0
        )
    }
}

impl Classifier {
    /// Train on two sides. Both count the same, whatever their sizes.
    #[must_use]
    pub fn train(positives: &[Features], negatives: &[Features], seed: u32) -> (Self, HeldOut) {
        let held = |(i, _): &(usize, &Features)| i % HELD_OUT == HELD_OUT - 1;
        let part = |side: &'_ [Features], out: bool| -> Vec<usize> {
            side.iter().enumerate().filter(|item| held(item) == out).map(|(i, _)| i).collect()
        };
        let (learn_positives, learn_negatives) = (part(positives, false), part(negatives, false));
        let total = (learn_positives.len() + learn_negatives.len()) as f32;
        let balance = |n: usize| total / (2.0 * n.max(1) as f32);
        let (heavy, light) = (balance(learn_positives.len()), balance(learn_negatives.len()));
        let mut order: Vec<(&Features, f32, f32)> = Vec::new();
        order.extend(learn_positives.iter().map(|&i| (&positives[i], 1.0, heavy)));
        order.extend(learn_negatives.iter().map(|&i| (&negatives[i], 0.0, light)));
        let mut random = RandomState::new(seed);
        let mut model = Classifier { weights: vec![0.0; 1 << BITS], bias: 0.0 };
        let steps = (EPOCHS as usize * order.len()) as f32;
        let mut step = 0;
        for _ in 0..EPOCHS {
            random.shuffle(&mut order);
            for (features, label, importance) in &order {
                let rate = RATE * (1.0 - step as f32 / steps);
                step += 1;
                let gradient = (model.score(features) as f32 - label) * importance;
                let change = rate * gradient * features.weight();
                for &feature in &features.0 {
                    model.weights[feature as usize] -= change;
                }
                model.bias -= 0.1 * rate * gradient;
            }
        }
        let judge = |side: &[Features], positive: bool| {
            let out = part(side, true);
            let right = out.iter().filter(|&&i| (model.score(&side[i]) > 0.5) == positive).count();
            (out.len(), right)
        };
        let (positives, negatives) = (judge(positives, true), judge(negatives, false));
        (model, HeldOut { positives, negatives, learned: order.len() })
    }

    /// The probability that a document is of the positive side.
    #[must_use]
    pub fn score(&self, features: &Features) -> f64 {
        let sum: f32 = features.0.iter().map(|&feature| self.weights[feature as usize]).sum();
        let logit = self.bias + sum * features.weight();
        1.0 / (1.0 + f64::from(-logit).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_vocabularies_are_told_apart() {
        let mut random = RandomState::new(3);
        // Half of the words are common to both sides.
        let mut side = |name: &str, n: usize| -> Vec<Features> {
            (0..n)
                .map(|_| {
                    let word = |random: &mut RandomState| match random.interval(1) {
                        0 => format!("common{}", random.interval(99)),
                        _ => format!("{name}{}", random.interval(99)),
                    };
                    let text: Vec<String> = (0..30).map(|_| word(&mut random)).collect();
                    Features::of(&text.join(" "))
                })
                .collect()
        };
        let (good, bad) = (side("good", 400), side("bad", 1000));
        let (model, held_out) = Classifier::train(&good, &bad, 1);
        assert_eq!((held_out.positives.0, held_out.negatives.0, held_out.learned), (40, 100, 1260));
        assert!(held_out.accuracy() > 0.98, "{held_out}");
        let (again, _) = Classifier::train(&good, &bad, 1);
        assert_eq!(model.weights, again.weights);
        // The same documents on both sides: nothing to learn.
        let (_, blind) = Classifier::train(&good, &good, 1);
        assert!((0.3..=0.7).contains(&blind.accuracy()), "{blind}");
    }
}
