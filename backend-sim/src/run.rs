//! A thread for each rank that runs, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use backend::{Backend, Class, Communicator, Error, Usage};

use crate::communicator::SimCommunicator;
use crate::device::{SimBackend, Spent, Workspace};
use crate::world::World;

/// Stack of a rank's thread: hundreds of them are there at once.
const STACK_BYTES: usize = 1 << 20;

/// What a rank was like at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct RankReport {
    /// The world rank.
    pub rank: usize,
    /// Its simulated time at the end, in seconds.
    pub seconds: f64,
    /// Where that went.
    pub spent: Spent,
    /// Bytes by class, in [`Class::ALL`]'s order.
    pub usage: [Usage; 5],
}

impl RankReport {
    /// The most bytes that it held, each class at its own peak.
    pub fn peak_bytes(&self) -> u64 {
        self.usage.iter().map(|usage| usage.peak).sum()
    }
}

/// What stopped a simulated run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A rank's own error.
    #[error("rank {rank}, {doing}: {error}")]
    Rank {
        /// The rank.
        rank: usize,
        /// What it was doing: the instruction, or the allocation.
        doing: String,
        /// What went wrong.
        error: Box<Error>,
    },
    /// Every rank that was not done waited.
    #[error("{0}")]
    Deadlock(Error),
    /// Messages that nobody received.
    #[error(
        "{count} message(s) of rank {from} to rank {to} on the {lane} lane were never received; the first is {first}"
    )]
    Unreceived {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// `Forward` or `Backward`.
        lane: String,
        /// How many.
        count: usize,
        /// Type and shape of the first.
        first: String,
    },
}

/// Runs `work` once for each rank that runs, and returns what each gave and what it was like. A rank may hold `limit` bytes.
///
/// # Errors
/// The [`Fault`] that came first.
pub fn run<R: Send>(
    world: &Arc<World>,
    limit: u64,
    workspace: &Workspace,
    work: impl Fn(&SimBackend, &SimCommunicator) -> Result<R, Error> + Sync,
) -> Result<Vec<(R, RankReport)>, Fault> {
    let one = |rank: usize| {
        let backend = Arc::new(SimBackend::new(world, rank, limit, Arc::clone(workspace)));
        let communicator = SimCommunicator::new(Arc::clone(&backend));
        let result =
            catch_unwind(AssertUnwindSafe(|| work(&backend, &communicator))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                Err(Error::Device { what: format!("panicked: {}", text.unwrap_or_default()) })
            });
        if let Err(error) = &result {
            communicator.fail(&error.to_string());
        }
        world.done();
        let report = RankReport {
            rank,
            seconds: backend.seconds(),
            spent: backend.spent(),
            usage: Class::ALL.map(|class| backend.usage(class)),
        };
        (rank, backend.doing(), result.map(|value| (value, report)))
    };
    let one = &one;
    let results: Vec<_> = std::thread::scope(|scope| {
        let spawn = |&rank: &usize| {
            let thread = std::thread::Builder::new().name(format!("rank {rank}")).stack_size(STACK_BYTES);
            (rank, thread.spawn_scoped(scope, move || one(rank)))
        };
        let threads: Vec<_> = world.present().ranks().iter().map(spawn).collect();
        if threads.iter().any(|(_, thread)| thread.is_err()) {
            world.fail(0, "a rank has no thread");
        }
        let failed = |rank, what: String| (rank, "at its beginning".to_owned(), Err(Error::Device { what }));
        threads
            .into_iter()
            .map(|(rank, thread)| match thread.map(|thread| thread.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => failed(rank, "a rank's thread died".to_owned()),
                Err(error) => failed(rank, format!("no thread for a rank: {error}")),
            })
            .collect()
    });
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for (rank, doing, result) in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push((rank, doing, error)),
        }
    }
    let at_fault = errors.iter().position(|(rank, ..)| Some(*rank) == world.at_fault()).unwrap_or(0);
    if !errors.is_empty() {
        let (rank, doing, error) = errors.swap_remove(at_fault);
        return Err(match error {
            Error::Deadlock { .. } => Fault::Deadlock(error),
            error => Fault::Rank { rank, doing, error: Box::new(error) },
        });
    }
    match world.unreceived() {
        None => Ok(values),
        Some((from, to, lane, count, first)) => {
            Err(Fault::Unreceived { from, to, lane: format!("{lane:?}"), count, first })
        }
    }
}
