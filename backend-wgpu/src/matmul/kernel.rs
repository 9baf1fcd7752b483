//! The kernels that multiply matrices: where each applies, and the block of `c` that a workgroup makes.

use crate::adapter::AdapterInfo;

/// A kernel that multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MatmulKernel {
    /// `matmul/registers.wgsl`.
    Registers,
    /// `matmul/subgroup.wgsl`.
    Subgroup,
    /// `matmul/tiled.wgsl` by blocks of 64 x 64.
    Tiled64,
    /// `matmul/tiled.wgsl` by blocks of 128 x 128.
    Tiled128,
    /// `matmul/cooperative.wgsl`.
    Cooperative,
}

use MatmulKernel::{Cooperative, Registers, Subgroup, Tiled64, Tiled128};

impl MatmulKernel {
    /// All of them.
    pub const ALL: [Self; 5] = [Registers, Subgroup, Tiled64, Tiled128, Cooperative];

    /// Its name, for the user and for the table on disk.
    pub fn name(self) -> &'static str {
        match self {
            Registers => "registers",
            Subgroup => "subgroup",
            Tiled64 => "tiled64",
            Tiled128 => "tiled128",
            Cooperative => "cooperative",
        }
    }

    /// The kernel of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name() == name)
    }

    /// Whether the adapter has what it needs.
    pub fn runs_on(self, info: &AdapterInfo) -> bool {
        match self {
            Registers | Tiled64 | Tiled128 => true,
            Subgroup => info.subgroup_lanes.is_some_and(|lanes| matches!(lanes, 4 | 8 | 16 | 32)),
            Cooperative => info.cooperative_matrices,
        }
    }

    /// Whether an element is the sum over k in order, each product added by `fma`, times `alpha`: kernels of which that is true make the same bits, and which of them
    /// runs is a matter of time only. In what order cooperative matrices add is the hardware's own business.
    pub fn in_order(self) -> bool {
        self != Cooperative
    }

    /// Rows and columns of `c` that a workgroup makes.
    pub fn block(self, info: &AdapterInfo) -> [usize; 2] {
        match self {
            Registers | Tiled64 => [64, 64],
            Tiled128 => [128, 128],
            Subgroup => [32, 4 * info.subgroup_lanes.unwrap_or(8) as usize],
            Cooperative => [32, 32],
        }
    }

    /// What is taken where nothing was measured. On a processor there is no fast memory to stage blocks in; on a GPU the larger block is worth it where there are enough.
    pub fn fixed(info: &AdapterInfo, m: usize, n: usize) -> Self {
        match info.software {
            true if Subgroup.runs_on(info) => Subgroup,
            true => Registers,
            false if m.min(n) >= 1024 => Tiled128,
            false => Tiled64,
        }
    }
}
