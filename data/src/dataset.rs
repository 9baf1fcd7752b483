//! Samples for training: several `.bin/.idx` sets, each in its own order, blended by weight.
//!
//! ```no_run
//! use data::dataset::{BlendConfig, BlendedDataset, BlendSet};
//! use data::split::Part;
//!
//! # fn main() -> data::Result<()> {
//! let data = BlendedDataset::open(&BlendConfig {
//!     sets: vec![BlendSet { prefix: "cache/book".into(), weight: 0.7 }, BlendSet { prefix: "cache/cargo".into(), weight: 0.3 }],
//!     split: "949,50,1".parse()?,
//!     part: Part::Train,
//!     sequence: 256,
//!     samples: Some(1000 * 32),
//!     seed: 1234,
//!     vocab_size: 4096,
//! })?;
//! let tokens = data.sample(0)?; // inputs tokens[..256], targets tokens[1..]
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: sample `i` is a pure function of the configuration and `i`. Ranks, batch size and what was read before play no part, so the
//! position in the data is one number, the global samples consumed.

use crate::blend::{self, Blend};
use crate::indexed::IndexedDataset;
use crate::order::{Piece, SampleOrder};
use crate::split::{Part, Split};
use crate::{Error, Result};
use rayon::prelude::*;
use std::path::PathBuf;

/// One set of a blend.
#[derive(Debug, Clone, PartialEq)]
pub struct BlendSet {
    /// Prefix of its `.bin/.idx` pair.
    pub prefix: PathBuf,
    /// Its weight; weights need not sum to 1.
    pub weight: f64,
}

/// What decides every sample.
#[derive(Debug, Clone, PartialEq)]
pub struct BlendConfig {
    /// The sets. Sets without a token in the part are left out, the weights of the others scaled up.
    pub sets: Vec<BlendSet>,
    /// Shares of train, valid and test.
    pub split: Split,
    /// The part that is read.
    pub part: Part,
    /// `s`: tokens of a sample's input.
    pub sequence: usize,
    /// Samples of the whole run, in as many epochs of each set as they need; `None`: every set once, whatever its weight.
    pub samples: Option<u64>,
    /// Seed of the shuffles.
    pub seed: u32,
    /// Size of the model's vocabulary: a token that it lacks is an error.
    pub vocab_size: usize,
}

#[derive(Debug)]
struct Member {
    /// Index in [`BlendConfig::sets`].
    set: usize,
    data: IndexedDataset,
    order: SampleOrder,
}

/// The blended samples of one part. Shared between threads by reference.
#[derive(Debug)]
pub struct BlendedDataset {
    members: Vec<Member>,
    blend: Blend,
    sequence: usize,
    vocab_size: usize,
}

impl BlendedDataset {
    /// Open the sets and build the index maps.
    ///
    /// # Errors
    /// Those of [`IndexedDataset::open`]; [`Error::EmptySplit`] if no set gives a sample; [`Error::OutOfRange`] for weights, a sequence length or a number
    /// of samples that cannot be.
    pub fn open(config: &BlendConfig) -> Result<Self> {
        let BlendConfig { split, part, sequence, samples, seed, .. } = *config;
        let weights: Vec<f64> = config.sets.iter().map(|set| set.weight).collect();
        blend::normalize(&weights)?;
        let mut opened = Vec::new();
        let (mut tokens, mut documents) = (0, 0);
        for (set, BlendSet { prefix, weight }) in config.sets.iter().enumerate() {
            let data = IndexedDataset::open(prefix)?;
            let range = split.range(part, data.lengths().len());
            let inside: u64 = data.lengths()[range.clone()].iter().map(|&length| u64::from(length)).sum();
            tokens += inside;
            documents += data.documents();
            if inside > 0 {
                opened.push((set, *weight, data, range));
            }
        }
        let empty = || Error::EmptySplit { part, sequence, tokens, documents, split };
        if opened.is_empty() {
            return Err(empty());
        }
        let mut drawn = None;
        let wanted = match samples {
            None => vec![None; opened.len()],
            Some(samples) => {
                let weights =
                    blend::normalize(&opened.iter().map(|(_, weight, ..)| *weight).collect::<Vec<_>>())?;
                let blend = Blend::weighted(&weights, samples)?;
                // Megatron refuses a blend that draws more of a set than its surplus covers; here the set is given what is drawn.
                let wanted = weights.iter().zip(blend.taken());
                // A lone set is no blend: Megatron gives it the samples themselves, without the surplus.
                let alone = opened.len() == 1;
                let wanted = wanted
                    .map(|(&weight, &taken)| match alone {
                        true => Some(samples),
                        false => Some(blend::samples_for(samples, weight).max(taken)),
                    })
                    .collect();
                drawn = Some(blend);
                wanted
            }
        };
        let members: Vec<Member> = opened
            .into_par_iter()
            .zip(wanted)
            .map(|((set, _, data, range), wanted)| {
                let order = SampleOrder::build(data.lengths(), range, sequence, wanted, seed)?;
                Ok(Member { set, data, order })
            })
            .collect::<Result<_>>()?;
        let blend = match drawn {
            Some(blend) => blend,
            None => Blend::exhaustive(
                &members.iter().map(|member| member.order.len() as u64).collect::<Vec<_>>(),
            )?,
        };
        if blend.is_empty() && samples != Some(0) {
            return Err(empty());
        }
        Ok(BlendedDataset { members, blend, sequence, vocab_size: config.vocab_size })
    }

    /// Samples in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.blend.len() as u64
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blend.is_empty()
    }

    /// The index in [`BlendConfig::sets`] of the set that sample `i` comes from; `None` past the end.
    #[must_use]
    pub fn set_of(&self, i: u64) -> Option<usize> {
        let (member, _) = self.blend.get(usize::try_from(i).ok()?)?;
        Some(self.members[member].set)
    }

    /// Epochs over each set, as (index in [`BlendConfig::sets`], epochs); sets left out are not in it.
    pub fn epochs(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.members.iter().map(|member| (member.set, member.order.epochs()))
    }

    /// Where the tokens of sample `i` come from, in order: the index in [`BlendConfig::sets`] and the piece. `None` past the end.
    #[must_use]
    pub fn pieces(&self, i: u64) -> Option<(usize, Vec<Piece>)> {
        let (member, index) = self.blend.get(usize::try_from(i).ok()?)?;
        let member = &self.members[member];
        Some((member.set, member.order.pieces(index)?.collect()))
    }

    /// Documents of the sets' files together, whatever their part.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.members.iter().map(|member| member.data.documents()).sum()
    }

    /// Global sample `i`: `s + 1` tokens.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] past the end; [`Error::TokenOutOfVocabulary`]; [`Error::DamagedIndex`] and [`Error::Io`] if the file has changed.
    pub fn sample(&self, i: u64) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        self.sample_into(i, &mut tokens)?;
        Ok(tokens)
    }

    /// Append global sample `i` to `tokens`, as [`BlendedDataset::sample`].
    ///
    /// # Errors
    /// As [`BlendedDataset::sample`].
    pub fn sample_into(&self, i: u64, tokens: &mut Vec<u32>) -> Result<()> {
        let place = usize::try_from(i).ok().and_then(|i| self.blend.get(i));
        let pieces = place.and_then(|(member, index)| {
            let member = &self.members[member];
            Some((member, member.order.pieces(index)?))
        });
        let Some((member, pieces)) = pieces else {
            let expected = format!("under the {} samples of the blend", self.blend.len());
            return Err(Error::OutOfRange { name: "sample", value: i.to_string(), expected });
        };
        tokens.reserve(self.sequence + 1);
        for piece in pieces {
            let start = tokens.len();
            member.data.read(piece.document, piece.start, piece.len, tokens)?;
            if let Some(at) = tokens[start..].iter().position(|&token| token as usize >= self.vocab_size) {
                return Err(Error::TokenOutOfVocabulary {
                    path: member.data.path().to_owned(),
                    position: member.data.position(piece.document) + (piece.start + at) as u64,
                    token: i64::from(tokens[start + at]),
                    vocab_size: self.vocab_size,
                });
            }
        }
        Ok(())
    }
}
