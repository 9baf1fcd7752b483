//! A machine, in TOML: what a datasheet says of it, and what was measured on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A cluster of equal nodes of equal devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// What it is.
    pub name: String,
    /// Where its numbers come from, in a sentence for each.
    #[serde(default)]
    pub sources: Vec<String>,
    /// One device.
    pub device: Device,
    /// One node.
    pub node: Node,
    /// Between nodes.
    pub network: Network,
    /// Where checkpoints go.
    pub storage: Storage,
    /// Dollars an hour of one device, for estimates.
    pub dollars_per_device_hour: f64,
    /// Operations that were measured on this machine, by name: they take this long, whatever the device's own numbers say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, Rate>,
}

/// A measured operation: seconds = `call` + `per_flop` x FLOPs + `per_byte` x bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Seconds a call.
    #[serde(default)]
    pub call: f64,
    /// Seconds a FLOP.
    #[serde(default)]
    pub per_flop: f64,
    /// Seconds a byte read or written.
    #[serde(default)]
    pub per_byte: f64,
}

/// A device that runs one rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Bytes of memory that a rank may hold.
    pub memory_bytes: u64,
    /// Peak FLOP/s of matrix products of bf16 and f16.
    pub peak_flops: f64,
    /// Peak FLOP/s of matrix products of f32.
    pub peak_flops_f32: f64,
    /// Share of the peak that the best shape of a matrix product reaches.
    pub matmul_efficiency: f64,
    /// Processors (SMs, cores) among which the tiles of a product are shared out.
    pub processors: usize,
    /// Tiles of the output, rows x columns, that kernels exist for.
    pub tiles: Vec<[usize; 2]>,
    /// Seconds that a tile takes beside its arithmetic: to fill its pipeline, and to drain it.
    pub tile_seconds: f64,
    /// Bytes a second from the last-level cache to all processors.
    pub cache_bandwidth: f64,
    /// Bytes a second of memory.
    pub memory_bandwidth: f64,
    /// Share of it that streaming kernels reach.
    pub memory_efficiency: f64,
    /// Seconds between two kernels that wait for each other.
    pub kernel_seconds: f64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Devices, whose ranks are neighbours.
    pub devices: usize,
    /// Cores that they share, where devices are threads of one machine: a step takes no less than all their work over all cores. None where each
    /// device works for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<usize>,
    /// Bytes a second and device and direction of a ring inside of the node, as reached ("bus bandwidth").
    pub ring_bandwidth: f64,
    /// Bytes a second of a message between two devices.
    pub message_bandwidth: f64,
    /// Seconds that a collective takes to begin.
    pub begin_seconds: f64,
    /// Seconds a step of a ring.
    pub step_seconds: f64,
}

/// Between nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Bytes a second and direction of a device's own adapter in a ring, as reached.
    pub ring_bandwidth: f64,
    /// The same for a message from one device to another.
    pub message_bandwidth: f64,
    /// Seconds a step of a ring, or that a message takes beside its bytes.
    pub step_seconds: f64,
}

/// Where checkpoints go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Bytes a second that a node writes, as long as there are not too many.
    pub node_bandwidth: f64,
    /// Bytes a second that all of them write together at most.
    pub bandwidth: f64,
}

/// The clusters that come with the program.
const BUILT_IN: [(&str, &str); 3] = [
    ("selene", include_str!("../../configs/clusters/selene.toml")),
    ("dgx-h100", include_str!("../../configs/clusters/dgx-h100.toml")),
    ("laptop", include_str!("../../configs/clusters/laptop.toml")),
];

/// Why there is no such cluster or stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// Neither a name that comes with the program nor a file.
    #[error("there is no {kind} `{name}`: it is neither one of {known} nor a file")]
    Unknown {
        /// `cluster` or `stack`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that is not one.
    #[error("{name} is not a {kind}: {message}")]
    Malformed {
        /// `cluster` or `stack`.
        kind: &'static str,
        /// The file.
        name: String,
        /// What is wrong, and where.
        message: String,
    },
}

/// A description by the name of one that comes with the program, or from a TOML file.
pub(crate) fn load<T: serde::de::DeserializeOwned>(
    kind: &'static str,
    built_in: &[(&str, &str)],
    name: &str,
) -> Result<T, DescriptionError> {
    let found = built_in.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let text = match found {
        Some(text) => text,
        None => std::fs::read_to_string(name).map_err(|_| DescriptionError::Unknown {
            kind,
            name: name.to_owned(),
            known: built_in.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        })?,
    };
    toml::from_str(&text).map_err(|error| DescriptionError::Malformed {
        kind,
        name: name.to_owned(),
        message: error.to_string().trim().to_owned(),
    })
}

impl Cluster {
    /// The cluster of that name, or in that file.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn load(name: &str) -> Result<Self, DescriptionError> {
        let cluster: Self = load("cluster", &BUILT_IN, name)?;
        match cluster.impossible() {
            None => Ok(cluster),
            Some(message) => {
                Err(DescriptionError::Malformed { kind: "cluster", name: name.to_owned(), message })
            }
        }
    }

    /// What cannot be in it, by its key.
    fn impossible(&self) -> Option<String> {
        let Self { device, node, network, storage, .. } = self;
        let above_zero = [
            ("device.peak_flops", device.peak_flops),
            ("device.peak_flops_f32", device.peak_flops_f32),
            ("device.matmul_efficiency", device.matmul_efficiency),
            ("device.cache_bandwidth", device.cache_bandwidth),
            ("device.memory_bandwidth", device.memory_bandwidth),
            ("device.memory_efficiency", device.memory_efficiency),
            ("node.ring_bandwidth", node.ring_bandwidth),
            ("node.message_bandwidth", node.message_bandwidth),
            ("network.ring_bandwidth", network.ring_bandwidth),
            ("network.message_bandwidth", network.message_bandwidth),
            ("storage.node_bandwidth", storage.node_bandwidth),
            ("storage.bandwidth", storage.bandwidth),
        ];
        let at_least_zero = [
            ("device.tile_seconds", device.tile_seconds),
            ("device.kernel_seconds", device.kernel_seconds),
            ("node.begin_seconds", node.begin_seconds),
            ("node.step_seconds", node.step_seconds),
            ("network.step_seconds", network.step_seconds),
            ("dollars_per_device_hour", self.dollars_per_device_hour),
        ];
        let refuse = |key: &str, value: f64, range: &str| {
            Some(format!("{key} = {value} is out of range; it must be {range}"))
        };
        let zero = device.tiles.is_empty() || device.tiles.iter().flatten().any(|&extent| extent == 0);
        if zero || device.processors == 0 || node.devices == 0 || device.memory_bytes == 0 {
            return Some(
                "device.tiles, device.processors, device.memory_bytes and node.devices must not be empty or 0".to_owned(),
            );
        }
        above_zero
            .into_iter()
            .find(|(_, value)| !(*value > 0.0 && value.is_finite()))
            .and_then(|(key, value)| refuse(key, value, "above 0"))
            .or_else(|| {
                at_least_zero
                    .into_iter()
                    .find(|(_, value)| !(*value >= 0.0 && value.is_finite()))
                    .and_then(|(key, value)| refuse(key, value, "at least 0"))
            })
    }

    /// The node that a rank runs on.
    pub fn node_of(&self, rank: usize) -> usize {
        rank / self.node.devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_with_the_program_are_whole() {
        for (name, _) in BUILT_IN {
            let cluster = Cluster::load(name).unwrap();
            assert!(!cluster.sources.is_empty(), "{name}");
            let text = toml::to_string(&cluster).unwrap();
            assert_eq!(toml::from_str::<Cluster>(&text).unwrap(), cluster);
        }
    }

    #[test]
    fn a_mistake_is_named() {
        let message = Cluster::load("moon").unwrap_err().to_string();
        assert!(message.contains("`moon`") && message.contains("selene, dgx-h100, laptop"), "{message}");
        let mut cluster = Cluster::load("selene").unwrap();
        cluster.node.ring_bandwidth = 0.0;
        assert!(cluster.impossible().unwrap().contains("node.ring_bandwidth = 0"));
        let mut cluster = Cluster::load("selene").unwrap();
        cluster.device.tiles.clear();
        assert!(cluster.impossible().unwrap().contains("device.tiles"));
    }
}
