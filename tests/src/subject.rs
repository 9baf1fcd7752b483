//! What the suite is run on: a backend by its name, how to open it, how to connect ranks of it.

use std::sync::Arc;
use std::time::Duration;

use backend::local::{LocalCommunicator, connect};
use backend::{Backend, Result};

/// A failure that is known, and why it is not mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The ids: those that have this text in them.
    pub pattern: &'static str,
    /// Why they fail.
    pub reason: &'static str,
}

/// A backend to be tested.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use backend_cpu::CpuBackend;
/// struct Mine;
///
/// impl conformance::Subject for Mine {
///     type Backend = CpuBackend;
///
///     fn name(&self) -> String {
///         "mine".into()
///     }
///
///     fn open(&self) -> backend::Result<Arc<CpuBackend>> {
///         Ok(CpuBackend::new(1))
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     conformance::main(Mine)
/// }
/// ```
pub trait Subject: 'static {
    /// The backend.
    type Backend: Backend;

    /// Its name on the command line.
    fn name(&self) -> String;

    /// Opens it for one rank.
    ///
    /// # Errors
    /// There is no device, or it does not open.
    fn open(&self) -> Result<Arc<Self::Backend>>;

    /// Opens it for several ranks, connected. By default each rank opens it for itself, and they reach each other's buffers.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn cluster(&self, ranks: usize, timeout: Duration) -> Result<Vec<LocalCommunicator<Self::Backend>>> {
        let backends = (0..ranks).map(|_| self.open()).collect::<Result<Vec<_>>>()?;
        Ok(connect(&backends, timeout))
    }

    /// Failures that are known.
    fn expected_failures(&self) -> &[Expectation] {
        &[]
    }
}
