//! Ranks on GPUs of their own: threads of this process that find each other over TCP as processes do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use backend::process::{Launch, TcpTransport};
use backend_cuda::{CudaBackend, NcclCommunicator, Settings};

/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What `work` makes of each of `n` ranks, on its thread, in rank order; calls between them wait no longer than `timeout`.
pub fn on_each<R: Send>(
    n: usize,
    timeout: Duration,
    invariant: bool,
    settings: &Settings,
    work: impl Fn(Arc<CudaBackend>, NcclCommunicator) -> R + Sync,
) -> Vec<R> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master_port = listener.local_addr().unwrap().port();
    let (work, listener) = (&work, &listener);
    std::thread::scope(|scope| {
        let rank = |rank| {
            scope.spawn(move || {
                let launch = Launch {
                    launcher: "test",
                    rank,
                    world_size: n,
                    local_rank: rank,
                    master_address: "127.0.0.1".to_owned(),
                    master_port,
                };
                let transport = match rank {
                    0 => TcpTransport::host(listener, &launch, "a run", PATIENCE),
                    _ => TcpTransport::connect(&launch, "a run", PATIENCE),
                };
                let backend = Arc::new(CudaBackend::new(rank, settings).unwrap());
                let shared = Arc::clone(&backend);
                let communicator =
                    NcclCommunicator::new(transport.unwrap(), shared, timeout, invariant, settings);
                work(backend, communicator.unwrap())
            })
        };
        let threads: Vec<_> = (0..n).map(rank).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
