//! Which adapter to run on.

use crate::dawn::Dawn;
use backend::{Error, Result};
use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

/// What the machine offers.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// The adapter's own name.
    pub name: String,
    /// The API that reaches it: `vulkan`, `metal`, `dx12`.
    pub api: &'static str,
    /// Whether it is a processor that plays a GPU: lavapipe, SwiftShader, WARP.
    pub software: bool,
    /// Driver and version.
    pub driver: String,
    /// Lanes of every subgroup, where kernels may count on it.
    pub subgroup_lanes: Option<u32>,
    /// Whether kernels may read f16 as such.
    pub f16: bool,
    /// Whether subgroups can multiply matrices of 8 x 8 f32 together.
    pub cooperative_matrices: bool,
    /// Whether they can multiply 16 x 16 f16, summed in f32.
    pub cooperative_f16: bool,
    /// Whether it can tell when a kernel began and ended.
    pub timestamps: bool,
    /// The largest buffer, in bytes.
    pub max_buffer: u64,
    /// The largest window on a buffer that a kernel sees, in bytes.
    pub max_binding: u64,
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.software { "software, " } else { "" };
        write!(f, "{} ({kind}{}, {})", self.name, self.api, self.driver)
    }
}

/// Which adapters are acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A GPU; discrete before integrated.
    Hardware,
    /// Also a software adapter, where there is no GPU.
    Any {
        /// Only adapters whose name, driver or API holds this, in any case.
        name: Option<String>,
    },
    /// Dawn in a child process, which compiles WGSL with Tint: a second implementation to hold the kernels against.
    Dawn(Dawn),
}

impl Choice {
    /// Whether the adapter will do.
    pub fn accepts(&self, info: &AdapterInfo) -> bool {
        match self {
            Choice::Hardware => !info.software,
            Choice::Any { name: None } => true,
            // Wgpu has none of Dawn's.
            Choice::Dawn(_) => false,
            Choice::Any { name: Some(part) } => {
                info.to_string().to_lowercase().contains(&part.to_lowercase())
            }
        }
    }
}

/// Every adapter of the machine, the preferred ones first: GPUs before software, discrete before integrated.
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate().into_iter().map(|(info, _)| info).collect()
}

/// The preferred adapter among those that are acceptable.
///
/// # Errors
/// [`Error::NoDevice`] with what there is and what would do.
pub(crate) fn choose(choice: &Choice) -> Result<(AdapterInfo, wgpu::Adapter)> {
    let all = enumerate();
    let seen: Vec<_> = all.iter().map(|(info, _)| info.to_string()).collect();
    all.into_iter().find(|(info, _)| choice.accepts(info)).ok_or_else(|| {
        let found = match seen.is_empty() {
            true => "this machine has no Vulkan, Metal or DX12 adapter".to_owned(),
            false => format!("this machine has only {}", seen.join(", ")),
        };
        let what = match choice {
            Choice::Hardware => {
                format!("looked for a GPU, but {found}; install the GPU's driver, or ask for a software adapter or the CPU backend")
            }
            Choice::Any { name: None } => {
                format!("looked for any adapter, but {found}; install a driver (on Debian mesa-vulkan-drivers libvulkan1), or use the CPU backend")
            }
            Choice::Any { name: Some(name) } => {
                format!("looked for an adapter called '{name}', but {found}; name another one")
            }
            Choice::Dawn(_) => "Dawn's adapters are not wgpu's".to_owned(),
        };
        Error::NoDevice { what }
    })
}

fn enumerate() -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = Instance::new(InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    // Stable, so that equals keep the driver's order.
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu | DeviceType::Other => 2,
        DeviceType::Cpu => 3,
    });
    adapters.into_iter().map(|adapter| (describe(&adapter), adapter)).collect()
}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let properties = adapter.cooperative_matrix_properties();
    let cooperative = |side, ab_type| {
        features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
            && properties.iter().any(|p| {
                [p.m_size, p.n_size, p.k_size] == [side; 3]
                    && p.ab_type == ab_type
                    && p.cr_type == wgpu::CooperativeScalarType::F32
            })
    };
    AdapterInfo {
        subgroup_lanes: (features.contains(wgpu::Features::SUBGROUP)
            && info.subgroup_min_size == info.subgroup_max_size)
            .then_some(info.subgroup_min_size),
        f16: features.contains(wgpu::Features::SHADER_F16),
        cooperative_matrices: cooperative(8, wgpu::CooperativeScalarType::F32),
        cooperative_f16: features.contains(wgpu::Features::SHADER_F16)
            && cooperative(16, wgpu::CooperativeScalarType::F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        software: info.device_type == DeviceType::Cpu,
        api: info.backend.to_str(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        name: info.name,
        max_buffer: max_buffer(&limits),
        max_binding: max_binding(&limits),
    }
}

/// Drivers claim more than they hold past 2 GiB.
pub(crate) const TRUSTED: u64 = (1 << 31) - 256;

pub(crate) fn max_buffer(limits: &wgpu::Limits) -> u64 {
    limits.max_buffer_size.min(TRUSTED)
}

pub(crate) fn max_binding(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(TRUSTED) / 256 * 256
}
