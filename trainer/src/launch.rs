//! Work that needs ranks, on whichever backend was chosen and wherever the ranks are: the one place where the choices become types.
//!
//! Ranks are threads of this process, or, where a launcher (mpirun, srun, torchrun) has started one process a rank, this process is one of them.

use std::sync::Arc;
use std::time::Duration;

use backend::local::{self, LocalCommunicator};
use backend::process::{Launch, ProcessCommunicator, Transport};
use backend::{Backend, Communicator};
use backend_cpu::CpuBackend;

use crate::device::Device;
use crate::{Error, Result};

/// The longest that a rank waits for another one, or for its device.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// The ranks that this process runs.
pub enum World<B: Backend> {
    /// All of them, as threads.
    Threads(Vec<LocalCommunicator<B>>),
    /// One of them.
    Process(ProcessCommunicator<B>),
}

impl<B: Backend> World<B> {
    /// What the backend of the first rank here says of itself.
    pub fn info(&self) -> Option<backend::Info> {
        match self {
            Self::Threads(ranks) => ranks.first().map(|rank| rank.backend().info()),
            Self::Process(rank) => Some(rank.backend().info()),
        }
    }

    /// As [`run`](Self::run), on threads, with a share of each rank's backend.
    ///
    /// # Errors
    /// The error that came first; ranks that are processes.
    pub fn run_shared<R: Send>(
        self,
        work: impl Fn(Arc<B>, &dyn Communicator<B::Buffer>) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        match self {
            Self::Threads(ranks) => local::run(ranks, |rank| work(rank.shared_backend(), rank)),
            Self::Process(_) => Err(Error::user("this needs its ranks to be threads of one process")),
        }
    }

    /// Runs `work` once a rank of this process, and returns their results in rank order. A rank that fails stops all others.
    ///
    /// # Errors
    /// The error that came first.
    pub fn run<R, E>(
        self,
        work: impl Fn(&B, &dyn Communicator<B::Buffer>) -> std::result::Result<R, E> + Sync,
    ) -> std::result::Result<Vec<R>, E>
    where
        R: Send,
        E: From<backend::Error> + std::fmt::Display + Send,
    {
        match self {
            Self::Threads(ranks) => local::run(ranks, |rank| work(rank.backend(), rank)),
            Self::Process(rank) => match work(rank.backend(), &rank) {
                Ok(result) => Ok(vec![result]),
                Err(error) => {
                    rank.fail(&error.to_string());
                    Err(error)
                }
            },
        }
    }
}

/// Something to do with a world of ranks, on any backend.
pub trait Job {
    /// What comes of it.
    type Output;

    /// Does it.
    ///
    /// # Errors
    /// Its own.
    fn run<B: Backend>(self, world: World<B>) -> Result<Self::Output>;
}

/// Opens the device for that many ranks of this process, and does the job on them.
///
/// # Errors
/// Those of the device and of the job.
pub fn launch<J: Job>(device: &Device, ranks: usize, job: J) -> Result<J::Output> {
    match device {
        Device::Cpu => job.run(World::Threads(backend_cpu::cluster(ranks, TIMEOUT))),
        Device::Wgpu(gpu) => job.run(World::Threads(gpu.setup(TIMEOUT).cluster(ranks)?)),
    }
}

/// This process among those that a launcher has started, connected to the others.
pub struct Process {
    launch: Launch,
    transport: Arc<dyn Transport>,
}

impl Process {
    /// Connects to the other processes, if a launcher has started this one as one of several. `identity` is what must be the same in all of them.
    ///
    /// # Errors
    /// Variables that contradict each other; processes that do not come, or are of another run.
    pub fn join(identity: &str) -> Result<Option<Self>> {
        let user = |error: backend::Error| Error::user(error.to_string());
        let Some(launch) = Launch::from_environment().map_err(user)?.filter(|launch| launch.world_size > 1)
        else {
            return Ok(None);
        };
        #[cfg(feature = "mpi")]
        let transport: Arc<dyn Transport> = match launch.launcher {
            "torchrun" | "Slurm" => {
                Arc::new(backend::process::TcpTransport::connect(&launch, identity, TIMEOUT).map_err(user)?)
            }
            _ => Arc::new(backend::process::MpiTransport::connect(identity, TIMEOUT).map_err(user)?),
        };
        #[cfg(not(feature = "mpi"))]
        let transport: Arc<dyn Transport> =
            Arc::new(backend::process::TcpTransport::connect(&launch, identity, TIMEOUT).map_err(user)?);
        Ok(Some(Self { launch, transport }))
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.launch.rank
    }

    /// Processes in all.
    pub fn world_size(&self) -> usize {
        self.launch.world_size
    }

    /// Does `first` on rank 0, then on the others: what it leaves on the shared disk is there for them.
    ///
    /// # Errors
    /// Its own; those of the other processes.
    pub fn in_turn<R>(&self, first: impl FnOnce() -> Result<R>) -> Result<R> {
        use backend::process::{Channel, Interrupted, Track};
        let failed = |interrupted: Interrupted| match interrupted {
            Interrupted::Failed { rank, cause } => Error::other(format!("rank {rank} failed: {cause}")),
            Interrupted::Silence => {
                Error::other("rank 0 is not done with the preparation of the text in an hour")
            }
        };
        if self.rank() > 0 {
            let hour = Duration::from_secs(3600);
            self.transport.recv(0, Channel::First(Track::Main), hour).map_err(failed)?;
            return self.or_fail(first());
        }
        let result = self.or_fail(first())?;
        for to in 1..self.world_size() {
            self.transport.send(to, Channel::First(Track::Main), Arc::new(Vec::new())).map_err(failed)?;
        }
        Ok(result)
    }

    /// Tells the others of an error.
    fn or_fail<R>(&self, result: Result<R>) -> Result<R> {
        if let Err(error) = &result {
            self.transport.fail(&error.to_string());
        }
        result
    }

    /// Opens the device for this process's rank, and does the job on it.
    ///
    /// # Errors
    /// Those of the device and of the job.
    pub fn launch<J: Job>(&self, device: &Device, job: J) -> Result<J::Output> {
        let transport = Arc::clone(&self.transport);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match device {
            Device::Cpu => {
                let backend = CpuBackend::new((cores / self.world_size()).max(1));
                job.run(World::Process(ProcessCommunicator::new(transport, backend, TIMEOUT)))
            }
            Device::Wgpu(gpu) => {
                let backend = Arc::new(self.or_fail(gpu.setup(TIMEOUT).rank().map_err(Error::from))?);
                job.run(World::Process(ProcessCommunicator::new(transport, backend, TIMEOUT)))
            }
        }
    }
}
