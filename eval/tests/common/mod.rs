//! What the tests share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};

use eval::scorer::{Counter, Request, Scored, Scorer};

/// The folder of the real sets, or a line that says why the test is skipped.
pub fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eval");
    if !folder.exists() {
        println!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

/// An answer that is a function of the request's bytes: `fixtures/harness.py` has the same one.
pub fn made_up(request: &Request) -> Scored {
    let continuation = request.continuation.as_bytes();
    let sum: u64 = continuation.iter().map(|byte| u64::from(*byte)).sum();
    let mixed = (request.context.len() as u64 * 7919 + continuation.len() as u64 * 104_729 + sum) % 10_007;
    Scored {
        log_likelihood: -(mixed as f64) / 512.0,
        tokens: continuation.len(),
        is_greedy: mixed.is_multiple_of(3),
    }
}

/// Answers with [`made_up`], the shortest request first; a token is a byte.
pub struct MadeUp {
    /// Longest sequence.
    pub max_tokens: usize,
    /// After so many answers it fails.
    pub fails_after: Option<usize>,
}

impl MadeUp {
    pub fn new() -> Self {
        Self { max_tokens: usize::MAX, fails_after: None }
    }
}

/// A model that went away.
#[derive(Debug)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the model is gone")
    }
}

impl std::error::Error for Gone {}

impl Scorer for MadeUp {
    fn score(&mut self, requests: &[Request], done: &mut dyn FnMut(usize, &Scored)) -> Result<(), Gone> {
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|i| requests[*i].context.len());
        for (answered, i) in order.into_iter().enumerate() {
            if self.fails_after == Some(answered) {
                return Err(Gone);
            }
            done(i, &made_up(&requests[i]));
        }
        Ok(())
    }
}

impl Counter for MadeUp {
    type Error = Gone;

    fn count_tokens(&self, text: &str) -> Result<usize, Gone> {
        Ok(text.len())
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}
