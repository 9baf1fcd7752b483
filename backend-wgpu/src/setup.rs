//! How a device is opened.

use std::path::PathBuf;
use std::time::Duration;

use backend::Result;
use backend::local::LocalCommunicator;

use crate::adapter::Choice;
use crate::backend::WgpuBackend;
use crate::device::Device;
use crate::trial::Trial;

/// How the kernels are chosen that do the same in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// By a fixed rule from the adapter and the extents: the same on every run, whatever a machine measures.
    #[default]
    Fixed,
    /// The fastest measured of those that make the same bits: which one it is cannot be told from a result.
    SameBits,
    /// The fastest measured of all that pass.
    Fastest,
}

/// How a device is opened: which adapter, how kernels are chosen, what is said about it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which adapters will do.
    pub choice: Choice,
    /// No wait, for the device or of ranks for each other, lasts longer.
    pub timeout: Duration,
    /// How kernels are chosen.
    pub kernels: Kernels,
    /// The folder where measurements of kernels are kept between runs.
    pub cache: Option<PathBuf>,
    /// Whether each kernel's time is taken, where the adapter can tell it.
    pub profile: bool,
    /// What is given a line of progress while kernels are compiled and measured.
    pub say: Option<fn(&str)>,
    /// What a test changes of the device.
    #[doc(hidden)]
    pub trial: Trial,
}

impl Setup {
    /// Fixed kernels, no cache, no profile, not a word.
    pub fn new(choice: Choice, timeout: Duration) -> Self {
        Self {
            choice,
            timeout,
            kernels: Kernels::Fixed,
            cache: None,
            profile: false,
            say: None,
            trial: Trial::default(),
        }
    }

    /// A rank alone on the preferred acceptable adapter.
    ///
    /// # Errors
    /// [`Error::NoDevice`](backend::Error::NoDevice) with what was looked for and what would do.
    pub fn rank(&self) -> Result<WgpuBackend> {
        Ok(WgpuBackend::rank(Device::open(self)?))
    }

    /// That many ranks on one adapter, connected; rank i gets the i-th.
    ///
    /// # Errors
    /// As [`rank`](Self::rank).
    pub fn cluster(&self, ranks: usize) -> Result<Vec<LocalCommunicator<WgpuBackend>>> {
        Ok(self.rank()?.cluster_beside(ranks))
    }
}
