//! What memory is for, and how much of it a rank holds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a buffer is for: reports and plans are by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Weights.
    Parameters,
    /// Their gradients.
    Gradients,
    /// Adam's moments, master weights.
    Optimizer,
    /// What the forward keeps for the backward.
    Activations,
    /// What lives within one operation or between two.
    Workspace,
}

impl Class {
    /// Every class, in the order of reports.
    pub const ALL: [Class; 5] =
        [Class::Parameters, Class::Gradients, Class::Optimizer, Class::Activations, Class::Workspace];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Parameters => "parameters",
            Class::Gradients => "gradients",
            Class::Optimizer => "optimizer",
            Class::Activations => "activations",
            Class::Workspace => "workspace",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes in use and at the peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes handed out now.
    pub current: u64,
    /// The most that was ever handed out at once.
    pub peak: u64,
}

/// Counts the bytes that one rank holds, by class. A backend keeps one a rank, shared with the buffers that it hands out.
#[derive(Debug, Default)]
pub struct Meter {
    current: [AtomicU64; 5],
    peak: [AtomicU64; 5],
}

impl Meter {
    /// Counts `bytes` more of that class.
    pub fn take(&self, class: Class, bytes: u64) {
        let now = self.current[class as usize].fetch_add(bytes, Relaxed) + bytes;
        self.peak[class as usize].fetch_max(now, Relaxed);
    }

    /// Counts `bytes` less of that class.
    pub fn give(&self, class: Class, bytes: u64) {
        self.current[class as usize].fetch_sub(bytes, Relaxed);
    }

    /// What the rank holds of that class.
    pub fn usage(&self, class: Class) -> Usage {
        let load = |counter: &[AtomicU64; 5]| counter[class as usize].load(Relaxed);
        Usage { current: load(&self.current), peak: load(&self.peak) }
    }

    /// What the rank holds in all.
    pub fn in_use(&self) -> u64 {
        self.current.iter().map(|counter| counter.load(Relaxed)).sum()
    }
}
