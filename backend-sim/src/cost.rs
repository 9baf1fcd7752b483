//! How long things take: the one file with the rules, each with its source. Constants are the [`Cluster`]'s.
//!
//! | what | rule | source |
//! |---|---|---|
//! | matrix product | the longer of arithmetic and memory | roofline: Williams et al. 2009 |
//! | its arithmetic | tiles of the output in waves over the processors; the best of the tiles there are | NVIDIA, Matrix Multiplication Background User's Guide |
//! | a tile | its FLOPs at the processor's share of the peak, or its operands from the cache, whichever is longer; and a fixed time to fill and drain | the same; CUTLASS's efficient GEMM |
//! | any other kernel | its bytes at the memory's bandwidth | roofline |
//! | all-reduce | ring: `2 (n - 1)/n` of the bytes, `2 (n - 1)` steps; or tree: twice the bytes, `2 log2` of the nodes; the quicker | NCCL, src/graph/tuning.cc; Patarasuk and Yuan 2009 |
//! | reduce-scatter, all-gather | ring: half of that | the same |
//! | a ring over nodes | every device of a node uses its own adapter: as many times an adapter's bandwidth as members on a node, at most the node's | NCCL; rank order puts neighbours on one node |
//! | message | bytes at the link's bandwidth and a step | NCCL |
//!
//! What is not here costs nothing: reading samples, the host between steps, stragglers, other jobs' traffic, clocks that drop.

use backend::DType;
use backend::ops::MatmulDims;

use crate::cluster::{Cluster, Device};

/// A kernel as the roofline sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// A matrix product of operands of this type, which moves so many bytes.
    Product {
        /// Extents.
        dims: MatmulDims,
        /// Type of both factors.
        dtype: DType,
        /// Bytes read and written.
        bytes: f64,
        /// Share of the product that is computed (causal attention skips half).
        share: f64,
    },
    /// Anything else: so many bytes.
    Stream(f64),
}

impl Kernel {
    /// FLOPs.
    pub fn flops(&self) -> f64 {
        match self {
            Self::Product { dims: MatmulDims { batch, m, n, k }, share, .. } => {
                2.0 * share * *batch as f64 * *m as f64 * *n as f64 * *k as f64
            }
            Self::Stream(_) => 0.0,
        }
    }

    /// Bytes.
    pub fn bytes(&self) -> f64 {
        match self {
            Self::Product { bytes, .. } | Self::Stream(bytes) => *bytes,
        }
    }
}

/// What ranks do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// Everybody has the sum of `bytes`.
    AllReduce,
    /// Everybody has its part of the sum of `bytes`.
    ReduceScatter,
    /// Everybody has all parts, `bytes` together.
    AllGather,
    /// Everybody has the root's `bytes`.
    Broadcast,
    /// Everybody is here.
    Barrier,
}

/// Where a group's members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Members.
    pub ranks: usize,
    /// Nodes that they are on.
    pub nodes: usize,
}

impl Cluster {
    /// Seconds of a kernel on a device of its own.
    pub fn kernel(&self, kernel: &Kernel) -> f64 {
        let device = &self.device;
        let memory = kernel.bytes() / (device.memory_bandwidth * device.memory_efficiency);
        let busy = match *kernel {
            Kernel::Product { dims, dtype, share, .. } => memory.max(share * device.product(dims, dtype)),
            Kernel::Stream(_) => memory,
        };
        busy + device.kernel_seconds
    }

    /// Where these world ranks are.
    pub fn spread(&self, ranks: &[usize]) -> Spread {
        let mut nodes: Vec<usize> = ranks.iter().map(|&rank| self.node_of(rank)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Spread { ranks: ranks.len(), nodes: nodes.len() }
    }

    /// Bytes a second and rank round a ring.
    fn ring_bandwidth(&self, Spread { ranks, nodes }: Spread) -> f64 {
        match nodes {
            0 | 1 => self.node.ring_bandwidth,
            _ => self.node.ring_bandwidth.min(self.network.ring_bandwidth * ranks as f64 / nodes as f64),
        }
    }

    /// Seconds of a collective on `bytes`, once all are there.
    pub fn collective(&self, what: Collective, spread: Spread, bytes: f64) -> f64 {
        let Spread { ranks, nodes } = spread;
        if ranks < 2 {
            return 0.0;
        }
        let (n, over) = (ranks as f64, nodes as f64);
        let bandwidth = self.ring_bandwidth(spread);
        let (node, network) = (&self.node, &self.network);
        // Once round: each step but those between nodes is inside of one.
        let round = (n - over) * node.step_seconds + (over - 1.0) * network.step_seconds;
        let depth = (n / over - 1.0) * node.step_seconds + over.log2().ceil() * network.step_seconds;
        let part = (n - 1.0) / n * bytes / bandwidth;
        let seconds = match what {
            Collective::AllReduce => {
                let ring = 2.0 * (part + round);
                let tree = 2.0 * (bytes / bandwidth + depth);
                ring.min(tree)
            }
            Collective::ReduceScatter | Collective::AllGather => part + round,
            Collective::Broadcast => bytes / bandwidth + depth,
            Collective::Barrier => 2.0 * depth,
        };
        node.begin_seconds + seconds
    }

    /// Seconds of a message from one rank to another.
    pub fn message(&self, from: usize, to: usize, bytes: f64) -> f64 {
        match self.node_of(from) == self.node_of(to) {
            true => self.node.step_seconds + bytes / self.node.message_bandwidth,
            false => self.network.step_seconds + bytes / self.network.message_bandwidth,
        }
    }

    /// Seconds to write `bytes`, shared out equally over the nodes of so many ranks.
    pub fn checkpoint(&self, ranks: usize, bytes: f64) -> f64 {
        let nodes = ranks.div_ceil(self.node.devices) as f64;
        bytes / (self.storage.node_bandwidth * nodes).min(self.storage.bandwidth)
    }
}

impl Device {
    /// Peak FLOP/s for factors of that type.
    pub fn peak(&self, dtype: DType) -> f64 {
        match dtype {
            DType::Bf16 | DType::F16 => self.peak_flops,
            DType::F32 | DType::U32 => self.peak_flops_f32,
        }
    }

    /// Seconds of a product's arithmetic, with the best of the tiles.
    fn product(&self, dims: MatmulDims, dtype: DType) -> f64 {
        let MatmulDims { batch, m, n, k } = dims;
        let processors = self.processors as f64;
        let flops = self.matmul_efficiency * self.peak(dtype) / processors;
        let cache = self.cache_bandwidth / processors;
        let seconds = |&[rows, columns]: &[usize; 2]| {
            let tiles = (batch * m.div_ceil(rows) * n.div_ceil(columns)) as f64;
            let (rows, columns, k) = (rows as f64, columns as f64, k as f64);
            let arithmetic = 2.0 * rows * columns * k / flops;
            let operands = (rows + columns) * k * dtype.size() as f64 / cache;
            (tiles / processors).ceil() * (arithmetic.max(operands) + self.tile_seconds)
        };
        self.tiles.iter().map(seconds).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selene() -> Cluster {
        Cluster::load("selene").unwrap()
    }

    fn product(batch: usize, m: usize, n: usize, k: usize) -> Kernel {
        let bytes = 2.0 * (batch * (m * k + k * n + m * n)) as f64;
        Kernel::Product { dims: MatmulDims { batch, m, n, k }, dtype: DType::Bf16, bytes, share: 1.0 }
    }

    fn tflops(kernel: &Kernel) -> f64 {
        kernel.flops() / selene().kernel(kernel) / 1e12
    }

    #[test]
    fn large_products_reach_their_share_and_none_more() {
        assert!((250.0..268.4).contains(&tflops(&product(1, 8192, 8192, 8192))));
        for size in [64, 300, 1000, 5000, 20_000] {
            assert!(tflops(&product(1, size, size, size)) < 312.0 * 0.86);
        }
    }

    /// 109 tiles take two waves of 108 processors: half the throughput of 108.
    #[test]
    fn waves_are_quantised() {
        let one = tflops(&product(1, 12 * 256, 9 * 128, 65_536));
        let more = tflops(&product(1, 12 * 256, 9 * 128 + 1, 65_536));
        assert!(more < 0.85 * one, "{more} {one}");
    }

    #[test]
    fn a_thin_product_is_as_slow_as_its_bytes() {
        let thin = product(1, 8, 20_480, 20_480);
        let bytes = thin.bytes() / (2.039e12 * 0.86);
        assert!((selene().kernel(&thin) - bytes - 1.5e-6).abs() < 1e-9);
    }

    #[test]
    fn a_ring_over_nodes_has_an_adapter_a_member() {
        let cluster = selene();
        let seconds = |ranks, nodes| cluster.collective(Collective::AllReduce, Spread { ranks, nodes }, 8e9);
        let ideal = |n: f64, bandwidth: f64| 2.0 * (n - 1.0) / n * 8e9 / bandwidth;
        assert!((seconds(8, 8) / ideal(8.0, 12.6e9) - 1.0).abs() < 1e-3);
        assert!((seconds(32, 4) / ideal(32.0, 8.0 * 12.6e9) - 1.0).abs() < 1e-2);
        assert!((seconds(8, 1) / ideal(8.0, 235e9) - 1.0).abs() < 1e-2);
        assert_eq!(seconds(1, 1), 0.0);
        // Three numbers over 2,240 ranks do not go round a ring.
        let tiny = cluster.collective(Collective::AllReduce, Spread { ranks: 2240, nodes: 280 }, 12.0);
        assert!(tiny < 1e-3, "{tiny}");
        let halves = [Collective::ReduceScatter, Collective::AllGather]
            .map(|what| cluster.collective(what, Spread { ranks: 8, nodes: 8 }, 8e9));
        assert!(((halves[0] + halves[1]) / seconds(8, 8) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn groups_know_their_nodes() {
        let cluster = selene();
        assert_eq!(cluster.spread(&[0, 1, 7]), Spread { ranks: 3, nodes: 1 });
        assert_eq!(cluster.spread(&[0, 8, 16, 17]), Spread { ranks: 4, nodes: 3 });
        assert!(cluster.message(0, 8, 1e6) > 5.0 * cluster.message(0, 1, 1e6));
    }
}
