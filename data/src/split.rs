//! Train, valid and test, cut by document in Megatron's way: `"949,50,1"` are shares of the documents in file order.

use crate::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of the three parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// What is trained on.
    Train,
    /// What the loss is validated on.
    Valid,
    /// What is kept for the end.
    Test,
}

impl Part {
    /// `train`, `valid` or `test`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Valid => "valid",
            Part::Test => "test",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        [Part::Train, Part::Valid, Part::Test].into_iter().find(|part| part.name() == value).ok_or_else(
            || Error::OutOfRange {
                name: "part",
                value: value.to_owned(),
                expected: "train, valid or test".to_owned(),
            },
        )
    }
}

/// Shares of train, valid and test; they sum to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split([f64; 3]);

impl Split {
    /// Shares in proportion to the three numbers.
    ///
    /// # Errors
    /// [`Error::InvalidSplit`] if one is negative or not finite, or all are 0.
    pub fn new(shares: [f64; 3]) -> Result<Self> {
        let invalid = |reason| Error::InvalidSplit { value: format!("{:?}", shares), reason };
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) {
            return Err(invalid("holds a number that is negative or not finite"));
        }
        let sum = shares[0] + shares[1] + shares[2];
        if sum <= 0.0 || !sum.is_finite() {
            return Err(invalid("sums to nothing"));
        }
        Ok(Split(shares.map(|share| share / sum)))
    }

    /// The documents of one part among `documents`: the ends are the running sums of the shares times the number of documents, each
    /// rounded to the nearest integer, ties to even (Python's `round`).
    #[must_use]
    pub fn range(&self, part: Part, documents: usize) -> Range<usize> {
        let [train, valid, test] = self.0;
        let (start, end) = match part {
            Part::Train => (0.0, train),
            Part::Valid => (train, train + valid),
            Part::Test => (train + valid, train + valid + test),
        };
        let edge = |share: f64| ((share * documents as f64).round_ties_even() as usize).min(documents);
        edge(start)..edge(end).max(edge(start))
    }
}

impl Default for Split {
    /// 949,50,1.
    fn default() -> Self {
        Split([0.949, 0.05, 0.001])
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, valid, test] = self.0;
        write!(f, "{train},{valid},{test}")
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidSplit { value: value.to_owned(), reason };
        let mut shares = [0.0; 3];
        let parts: Vec<&str> = value.split(',').map(str::trim).collect();
        if parts.len() > 3 {
            return Err(invalid("has more than three numbers"));
        }
        for (share, part) in shares.iter_mut().zip(&parts) {
            *share = part.parse().map_err(|_| invalid("holds something that is no number"))?;
        }
        Split::new(shares).map_err(|error| match error {
            Error::InvalidSplit { reason, .. } => invalid(reason),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_tile_the_documents() {
        for split in ["949,50,1", "1,1,1", "99,1,0", "1", "0,0,1", "969, 30, 1"] {
            let split: Split = split.parse().unwrap();
            for n in 0..300 {
                let [a, b, c] = [Part::Train, Part::Valid, Part::Test].map(|part| split.range(part, n));
                assert_eq!((a.start, a.end, b.end, c.end), (0, b.start, c.start, n), "{split} of {n}");
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["", "a", "1,2,3,4", "-1,2", "0,0,0", "nan", "inf,1,1"] {
            let error = bad.parse::<Split>().unwrap_err();
            assert!(matches!(&error, Error::InvalidSplit { value, .. } if value == bad), "{error}");
        }
    }
}
