//! The order in which samples are cut out of documents: Megatron's three index maps.
//!
//! ```text
//!   document index   the documents of a part, E times over, shuffled                            [E * documents]
//!   sample index     sample j starts in entry `.0` of the document index, at token `.1`         [samples + 1]
//!   shuffle index    the order in which the samples are drawn                                   [samples]
//! ```
//!
//! A sample is `s + 1` tokens and shares its last token with the first of its neighbour, for inputs `[..s]` and targets `[1..]`. `E` is
//! the smallest number of epochs with `(E * T - 1) / s >= samples`. Where the last epoch would supply under 80% of an epoch's samples it is shuffled
//! apart and appended, so that no document of it is drawn long before the others have been seen as often.
//!
//! Of the sample index every eighth entry is kept and the others are found from the one before: 300 million samples take 1.5 GB instead of 3.6, in which
//! the documents' lengths and index are not counted.
//!
//! Invariant: with the same documents, `s`, number of samples and seed, the maps are those of Megatron-LM's `GPTDataset`.

use crate::mt19937::RandomState;
use crate::{Error, Result};
use std::ops::Range;

/// Share of an epoch's samples under which the last epoch is shuffled apart.
const SEPARATE_BELOW: f64 = 0.80;

/// Samples from one kept entry of the sample index to the next.
const STRIDE: usize = 8;

/// A piece of a sample: `len` tokens of document `document` from token `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the document in the file.
    pub document: usize,
    /// First token, counted from the document's start.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
}

/// The three index maps of one part of one data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleOrder {
    document_index: Vec<u32>,
    /// Every [`STRIDE`]-th entry of the sample index.
    starts: Vec<(u32, u32)>,
    sequence: u64,
    shuffle_index: Vec<u32>,
    lengths: Vec<u32>,
    first: usize,
    epochs: u64,
}

impl SampleOrder {
    /// Build the maps over `lengths[documents]`.
    ///
    /// `lengths` are the tokens of each document of the file, `s` the tokens of a sample's input, `samples` how many are wanted (`None`:
    /// one epoch). The result holds at least as many, all that the epochs give; none if the part holds too few tokens for one sample of
    /// an epoch asked for by `None`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if `s` is 0, or the documents over all epochs or the samples are more than 2^32. A part without tokens is no
    /// error: it gives no samples.
    ///
    /// # Panics
    /// If `documents` is no range of `lengths`.
    pub fn build(
        lengths: &[u32],
        documents: Range<usize>,
        s: usize,
        samples: Option<u64>,
        seed: u32,
    ) -> Result<Self> {
        if s == 0 {
            return Err(out_of_range("sequence length", 0, "at least 1"));
        }
        let first = documents.start;
        let lengths: Vec<u32> = lengths[documents].to_vec();
        let tokens: u64 = lengths.iter().map(|&len| u64::from(len)).sum();
        let s = s as u64;
        let epochs = match samples {
            _ if tokens == 0 => 0,
            None => 1,
            Some(samples) => epochs_for(samples, s, tokens)?,
        };
        let documents = lengths.len() as u64;
        if epochs.checked_mul(documents).is_none_or(|entries| entries > u64::from(u32::MAX)) {
            let value = format!("{documents} documents x {epochs} epochs");
            return Err(out_of_range("documents over all epochs", value, "at most 2^32 - 1"));
        }
        let total = samples_in(epochs, s, tokens);
        if total >= u64::from(u32::MAX) - 1 {
            return Err(out_of_range("samples of one data set", total, "under 2^32 - 2"));
        }
        let before_last = samples_in(epochs.saturating_sub(1), s, tokens);
        let separate = match samples {
            Some(samples) if epochs > 1 => {
                let per_epoch = samples_in(1, s, tokens);
                // The product is cut to an integer before the comparison.
                samples.saturating_sub(before_last) < (SEPARATE_BELOW * per_epoch as f64) as u64
            }
            _ => false,
        };
        let mut rng = RandomState::new(seed);
        let document_index = document_index(lengths.len(), epochs, separate, &mut rng);
        let starts = starts(&lengths, &document_index, s, total);
        let shuffle_index = shuffle_index(total, if separate { before_last } else { total }, &mut rng);
        Ok(SampleOrder { document_index, starts, sequence: s, shuffle_index, lengths, first, epochs })
    }

    /// Samples in the order.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shuffle_index.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shuffle_index.is_empty()
    }

    /// Epochs over the documents.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// The documents in the order in which samples are cut from them, as indices in the file.
    pub fn document_index(&self) -> impl Iterator<Item = usize> + '_ {
        self.document_index.iter().map(|&document| self.first + document as usize)
    }

    /// Where each sample starts, before shuffling: (entry of the document index, token in that document).
    pub fn sample_index(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..=self.len()).map(|sample| self.start(sample))
    }

    fn start(&self, sample: usize) -> (u32, u32) {
        let mut start = self.starts[sample / STRIDE];
        for _ in 0..sample % STRIDE {
            start = next_start(&self.lengths, &self.document_index, self.sequence, start);
        }
        start
    }

    /// The order in which samples are drawn.
    #[must_use]
    pub fn shuffle_index(&self) -> &[u32] {
        &self.shuffle_index
    }

    /// The pieces of the sample drawn `i`-th, in order; their lengths sum to `s + 1`. `None` past the end.
    pub fn pieces(&self, i: usize) -> Option<impl Iterator<Item = Piece> + '_> {
        let sample = *self.shuffle_index.get(i)? as usize;
        let begin = self.start(sample);
        let end = next_start(&self.lengths, &self.document_index, self.sequence, begin);
        Some((begin.0..=end.0).filter_map(move |entry| {
            let document = self.document_index[entry as usize] as usize;
            let start = if entry == begin.0 { begin.1 } else { 0 };
            let stop = if entry == end.0 { end.1 + 1 } else { self.lengths[document] };
            let piece = Piece {
                document: self.first + document,
                start: start as usize,
                len: (stop - start) as usize,
            };
            (piece.len > 0).then_some(piece)
        }))
    }
}

fn out_of_range(name: &'static str, value: impl ToString, expected: &str) -> Error {
    Error::OutOfRange { name, value: value.to_string(), expected: expected.to_owned() }
}

/// Samples of `s` tokens, and one token more at the end, in `epochs` epochs of `tokens`.
fn samples_in(epochs: u64, s: u64, tokens: u64) -> u64 {
    (epochs * tokens).saturating_sub(1) / s
}

/// The smallest number of epochs, at least 1, that hold `samples * s + 1` tokens.
fn epochs_for(samples: u64, s: u64, tokens: u64) -> Result<u64> {
    samples
        .checked_mul(s)
        .and_then(|wanted| wanted.checked_add(1))
        .filter(|wanted| *wanted <= i64::MAX as u64)
        .map(|wanted| wanted.div_ceil(tokens).max(1))
        .ok_or_else(|| out_of_range("samples", samples, "at most 2^63 tokens"))
}

fn document_index(documents: usize, epochs: u64, separate: bool, rng: &mut RandomState) -> Vec<u32> {
    let mut index = Vec::with_capacity(documents * epochs as usize);
    let runs = if separate { [epochs - 1, 1] } else { [epochs, 0] };
    for run in runs {
        let start = index.len();
        for _ in 0..run {
            index.extend(0..documents as u32);
        }
        rng.shuffle(&mut index[start..]);
    }
    index
}

fn starts(lengths: &[u32], document_index: &[u32], s: u64, total: u64) -> Vec<(u32, u32)> {
    let mut starts = Vec::with_capacity(total as usize / STRIDE + 1);
    let mut start = (0, 0);
    starts.push(start);
    for sample in 1..=total as usize {
        start = next_start(lengths, document_index, s, start);
        if sample.is_multiple_of(STRIDE) {
            starts.push(start);
        }
    }
    starts
}

/// Where the next sample starts: `s` tokens on. That token must exist, which the number of samples sees to.
fn next_start(lengths: &[u32], document_index: &[u32], s: u64, start: (u32, u32)) -> (u32, u32) {
    let (mut entry, mut offset) = (start.0 as usize, u64::from(start.1));
    let mut ahead = s;
    loop {
        let left = u64::from(lengths[document_index[entry] as usize]) - offset;
        if ahead < left {
            return (entry as u32, (offset + ahead) as u32);
        }
        ahead -= left;
        entry += 1;
        offset = 0;
    }
}

fn shuffle_index(total: u64, first_run: u64, rng: &mut RandomState) -> Vec<u32> {
    let mut index: Vec<u32> = (0..total as u32).collect();
    let (first, last) = index.split_at_mut(first_run as usize);
    rng.shuffle(first);
    if !last.is_empty() {
        rng.shuffle(last);
    }
    index
}
