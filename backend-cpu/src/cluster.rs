//! Ranks as threads of this process.

use std::sync::Arc;
use std::time::Duration;

use backend::local::{LocalCommunicator, connect};

use crate::CpuBackend;

/// As many ranks, each with its own backend and an equal share of the processor's cores (at least one thread); no wait between them lasts longer than
/// `timeout`.
pub fn cluster(ranks: usize, timeout: Duration) -> Vec<LocalCommunicator<CpuBackend>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / ranks.max(1)).max(1);
    let backends: Vec<Arc<CpuBackend>> = (0..ranks).map(|_| CpuBackend::new(threads)).collect();
    connect(&backends, timeout)
}
