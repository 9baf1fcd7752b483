//! Groups of documents that verified pairs connect: a disjoint-set forest whose roots are the first documents.

use super::spool::Sealed;
use super::{ALL_PAIRS, jaccard};
use crate::Result;
use rayon::prelude::*;

/// Candidate pairs that are verified at once.
const BATCH: usize = 1 << 14;

/// The groups.
pub(super) struct Groups {
    parents: Vec<u32>,
    /// Pairs that were compared.
    pub compared: u64,
    /// Pairs that joined two groups.
    pub joined: u64,
}

impl Groups {
    pub fn new(documents: u32) -> Self {
        Groups { parents: (0..documents).collect(), compared: 0, joined: 0 }
    }

    /// The first document of a document's group.
    pub fn first(&mut self, mut document: u32) -> u32 {
        while self.parents[document as usize] != document {
            let grandparent = self.parents[self.parents[document as usize] as usize];
            self.parents[document as usize] = grandparent;
            document = grandparent;
        }
        document
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first(a), self.first(b));
        if a != b {
            // The lower number is the root: it is what stays.
            self.parents[a.max(b) as usize] = a.min(b);
            self.joined += 1;
        }
    }

    /// Compare the documents that meet in a band.
    ///
    /// Which pairs are left out because their documents are in one group already does not change the groups, so that comparing in batches, on any number
    /// of threads, gives the same ones.
    pub fn join_band(&mut self, spool: &Sealed, band: usize, least: f64) -> Result<()> {
        let hashes = spool.band(band)?;
        let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
        order.par_sort_unstable_by_key(|&at| (hashes[at as usize], at));
        let mut pairs = Vec::new();
        for bucket in order.chunk_by(|&a, &b| hashes[a as usize] == hashes[b as usize]) {
            if bucket.len() > ALL_PAIRS {
                self.verify(spool, &mut pairs, least)?;
                self.join_crowd(spool, bucket, least)?;
                continue;
            }
            for (i, &a) in bucket.iter().enumerate() {
                for &b in &bucket[i + 1..] {
                    if self.first(spool.document(a)) != self.first(spool.document(b)) {
                        pairs.push((a, b));
                    }
                }
            }
            if pairs.len() >= BATCH {
                self.verify(spool, &mut pairs, least)?;
            }
        }
        self.verify(spool, &mut pairs, least)
    }

    fn verify(&mut self, spool: &Sealed, pairs: &mut Vec<(u32, u32)>, least: f64) -> Result<()> {
        self.compared += pairs.len() as u64;
        let similar: Vec<Result<bool>> =
            pairs.par_iter().map(|&(a, b)| similar(spool, a, b, least)).collect();
        for (&(a, b), similar) in pairs.iter().zip(similar) {
            if similar? {
                self.join(spool.document(a), spool.document(b));
            }
        }
        pairs.clear();
        Ok(())
    }

    /// Each document against one of every group of the bucket so far.
    fn join_crowd(&mut self, spool: &Sealed, bucket: &[u32], least: f64) -> Result<()> {
        let mut heads: Vec<u32> = Vec::new();
        for &at in bucket {
            let mut found = false;
            for &head in &heads {
                if self.first(spool.document(head)) == self.first(spool.document(at)) {
                    found = true;
                } else {
                    self.compared += 1;
                    if similar(spool, head, at, least)? {
                        self.join(spool.document(head), spool.document(at));
                        found = true;
                    }
                }
                if found {
                    break;
                }
            }
            if !found {
                heads.push(at);
            }
        }
        Ok(())
    }
}

fn similar(spool: &Sealed, a: u32, b: u32, least: f64) -> Result<bool> {
    let (small, large) = (spool.size(a).min(spool.size(b)), spool.size(a).max(spool.size(b)));
    // Even if one holds all of the other.
    if (small as f64) < least * large as f64 {
        return Ok(false);
    }
    Ok(jaccard(&spool.shingles(a)?, &spool.shingles(b)?) >= least)
}
