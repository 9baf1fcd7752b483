//! The GPUs that the driver shows, and why one can't be used.

use backend::Result;

use crate::device::unfit;
use crate::driver::{self, Failed, Ordinal};
use crate::libraries::Settings;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number: rank i of a node takes the i-th.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
    /// CUDA version of the driver, major and minor.
    pub driver: (i32, i32),
    /// The other GPUs whose memory it reaches over the best links there are (NVLink where there is one).
    pub peers: Vec<usize>,
    /// Why it can't be used, if so.
    pub unfit: Option<String>,
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, name, capability: (major, minor), memory, driver, peers, unfit } = self;
        let gib = *memory as f64 / (1u64 << 30) as f64;
        write!(
            f,
            "cuda:{index} {name}, capability {major}.{minor}, {gib:.1} GiB, CUDA {}.{}",
            driver.0, driver.1
        )?;
        if !peers.is_empty() {
            write!(f, ", linked to {peers:?}")?;
        }
        match unfit {
            Some(why) => write!(f, " (can't be used: {why})"),
            None => Ok(()),
        }
    }
}

/// All GPUs, in the driver's order.
///
/// # Errors
/// [`NoDevice`](backend::Error::NoDevice): the driver is missing or does not start; [`Device`](backend::Error::Device) if it fails later.
pub fn devices(settings: &Settings) -> Result<Vec<DeviceInfo>> {
    driver::start(settings)?;
    let list = || -> std::result::Result<Vec<DeviceInfo>, Failed> {
        let ordinals =
            (0..driver::device_count()?).map(Ordinal::get).collect::<std::result::Result<Vec<_>, _>>()?;
        let driver = driver::version()?;
        let one = |(index, device): (usize, &Ordinal)| {
            let others = ordinals.iter().enumerate().filter(|(other, _)| *other != index);
            let links =
                others.filter_map(|(other, peer)| Some((other, device.link(*peer)?))).collect::<Vec<_>>();
            let best = links.iter().map(|(_, rank)| *rank).min();
            let capability = device.capability()?;
            Ok(DeviceInfo {
                index,
                name: device.name()?,
                capability,
                memory: device.memory()?,
                driver,
                peers: links
                    .iter()
                    .filter(|(_, rank)| Some(*rank) == best)
                    .map(|(other, _)| *other)
                    .collect(),
                unfit: unfit(capability),
            })
        };
        ordinals.iter().enumerate().map(one).collect()
    };
    Ok(list()?)
}
