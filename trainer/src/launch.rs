//! Work that needs ranks, on whichever backend was chosen and wherever the ranks are: the one place where the choices become types.
//!
//! Ranks are threads of this process, or, where a launcher (mpirun, srun, torchrun) has started one process a rank, this process is one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Some of them, each on a thread, talking in the device's own way.
    Members(Vec<Member<B>>),
}

/// A rank whose communicator is the device's own.
pub struct Member<B: Backend> {
    /// Its device.
    pub backend: Arc<B>,
    /// Its end of the world.
    pub communicator: Box<dyn Communicator<B::Buffer>>,
}

impl<B: Backend> World<B> {
    /// What the backend of the first rank here says of itself.
    pub fn info(&self) -> Option<backend::Info> {
        match self {
            Self::Threads(ranks) => ranks.first().map(|rank| rank.backend().info()),
            Self::Process(rank) => Some(rank.backend().info()),
            Self::Members(members) => members.first().map(|member| member.backend.info()),
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
            Self::Process(_) | Self::Members(_) => {
                Err(Error::user("this needs its ranks to be threads of one process"))
            }
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
            Self::Members(members) => together(members, work),
        }
    }
}

/// Each member on a thread of its own; of several errors the one that came first.
fn together<B: Backend, R: Send, E: From<backend::Error> + std::fmt::Display + Send>(
    members: Vec<Member<B>>,
    work: impl Fn(&B, &dyn Communicator<B::Buffer>) -> std::result::Result<R, E> + Sync,
) -> std::result::Result<Vec<R>, E> {
    let (work, failures) = (&work, &AtomicUsize::new(0));
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = |member: Member<B>| {
            scope.spawn(move || {
                work(&member.backend, &*member.communicator).map_err(|error| {
                    let order = failures.fetch_add(1, Ordering::Relaxed);
                    member.communicator.fail(&error.to_string());
                    (order, error)
                })
            })
        };
        let threads: Vec<_> = members.into_iter().map(run).collect();
        let died =
            || (usize::MAX, E::from(backend::Error::Device { what: "a rank's thread died".to_owned() }));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died()))).collect()
    });
    let (mut values, mut first) = (Vec::with_capacity(results.len()), None);
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err((order, error)) if first.as_ref().is_none_or(|(earlier, _)| order < *earlier) => {
                first = Some((order, error));
            }
            Err(_) => {}
        }
    }
    first.map_or(Ok(values), |(_, error)| Err(error))
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

/// A device that is open, for one world of ranks of this process after the other.
pub enum Opened {
    /// The CPU backend, which needs no opening.
    Cpu,
    /// A rank that keeps the device and its compiled kernels.
    Wgpu(backend_wgpu::WgpuBackend),
    /// The CUDA backend, opened for each world anew.
    #[cfg(any(feature = "cuda", feature = "cuda-13"))]
    Cuda(backend_cuda::Products),
}

impl Opened {
    /// Opens the device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(match device {
            Device::Cpu => Self::Cpu,
            Device::Wgpu(gpu) => Self::Wgpu(gpu.setup(TIMEOUT).rank()?),
            #[cfg(any(feature = "cuda", feature = "cuda-13"))]
            Device::Cuda(products) => Self::Cuda(*products),
        })
    }

    /// Does the job on that many ranks.
    ///
    /// # Errors
    /// Those of the device and of the job.
    pub fn launch<J: Job>(&self, ranks: usize, job: J) -> Result<J::Output> {
        match self {
            Self::Cpu => job.run(World::Threads(backend_cpu::cluster(ranks, TIMEOUT))),
            Self::Wgpu(rank) => job.run(World::Threads(rank.cluster_beside(ranks))),
            #[cfg(any(feature = "cuda", feature = "cuda-13"))]
            Self::Cuda(products) => {
                let settings = crate::device::cuda_settings(*products);
                job.run(World::Threads(backend_cuda::CudaBackend::cluster(ranks, TIMEOUT, 0, &settings)?))
            }
        }
    }
}

/// Opens the device and does the job on that many ranks of this process.
///
/// # Errors
/// Those of the device and of the job.
pub fn launch<J: Job>(device: &Device, ranks: usize, job: J) -> Result<J::Output> {
    Opened::new(device)?.launch(ranks, job)
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

    /// Opens the device for this process's rank, and does the job on it; with `invariant` numerics, sums between GPUs have the contract's tree.
    ///
    /// # Errors
    /// Those of the device and of the job.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "cuda-13")),
        allow(unused_variables, reason = "all sums of the other backends have that tree")
    )]
    pub fn launch<J: Job>(&self, device: &Device, invariant: bool, job: J) -> Result<J::Output> {
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
            #[cfg(any(feature = "cuda", feature = "cuda-13"))]
            Device::Cuda(products) => {
                use backend_cuda::{CudaBackend, NcclCommunicator};
                let settings = crate::device::cuda_settings(*products);
                let open = || {
                    let backend = Arc::new(CudaBackend::new(self.launch.local_rank, &settings)?);
                    let communicator = NcclCommunicator::new(
                        transport,
                        Arc::clone(&backend),
                        TIMEOUT,
                        invariant,
                        &settings,
                    )?;
                    Ok(Member { backend, communicator: Box::new(communicator) })
                };
                let member = self.or_fail(open().map_err(|error: backend::Error| Error::from(error)))?;
                job.run(World::Members(vec![member]))
            }
        }
    }
}
