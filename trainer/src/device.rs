//! Which backend a run uses, and why: one line for the user.

use std::time::Duration;

use backend_wgpu::{AdapterInfo, Choice, Kernels, Setup, adapters};

use crate::config::BackendChoice;
use crate::run::cache_dir;
use crate::{Error, Result};

/// The backend of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU backend.
    Cpu,
    /// The wgpu backend.
    Wgpu(Gpu),
    /// The CUDA backend, with who makes its matrix products: ranks that are threads share the first GPU, each process of a node takes its own.
    #[cfg(any(feature = "cuda", feature = "cuda-13"))]
    Cuda(backend_cuda::Products),
}

/// How the wgpu backend is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Which adapters will do.
    pub choice: Choice,
    /// How kernels are chosen that do the same.
    pub kernels: Kernels,
    /// Whether each kernel's time is taken.
    pub profile: bool,
}

impl Gpu {
    /// With fixed kernels, untimed.
    pub fn new(choice: Choice) -> Self {
        Self { choice, kernels: Kernels::Fixed, profile: false }
    }

    /// What the backend is opened with; measurements of kernels are kept in the cache folder, progress is told on stderr.
    pub fn setup(&self, timeout: Duration) -> Setup {
        Setup {
            kernels: self.kernels,
            cache: Some(cache_dir()),
            profile: self.profile,
            say: Some(|line| eprintln!("{line}")),
            ..Setup::new(self.choice.clone(), timeout)
        }
    }
}

impl Device {
    /// The same device with kernels chosen that way. On CUDA matrix products are cuBLASLt's where only speed counts, and our own else: those alone have the same
    /// bits in every layout.
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        match self {
            Self::Cpu => Self::Cpu,
            Self::Wgpu(gpu) => Self::Wgpu(Gpu { kernels, ..gpu }),
            #[cfg(any(feature = "cuda", feature = "cuda-13"))]
            Self::Cuda(_) => Self::Cuda(match kernels {
                Kernels::Fastest => backend_cuda::Products::Fastest,
                Kernels::Fixed | Kernels::SameBits => backend_cuda::Products::Kernels,
            }),
        }
    }

    /// The same device, which tells what each kernel took.
    ///
    /// # Errors
    /// The CPU backend, which has no kernels; an adapter without timestamps.
    pub fn profiled(self) -> Result<Self> {
        let user = |what: String, remedy| Err(Error::user(what).remedy(remedy));
        match self {
            Self::Cpu => {
                user("--profile: the CPU backend has no kernels to measure".to_owned(), "use --backend wgpu")
            }
            #[cfg(any(feature = "cuda", feature = "cuda-13"))]
            Self::Cuda(_) => {
                user("--profile: the CUDA backend does not take kernels' times yet".to_owned(), "use nsys")
            }
            Self::Wgpu(gpu) => match adapters().iter().find(|adapter| gpu.choice.accepts(adapter)) {
                Some(adapter) if !adapter.timestamps => user(
                    format!("--profile: {adapter} has no timestamps"),
                    "update its driver, or leave --profile out",
                ),
                _ => Ok(Self::Wgpu(Gpu { profile: true, ..gpu })),
            },
        }
    }
}

/// Chooses the backend; returns it with one line that says which and why.
///
/// `auto` takes a hardware GPU where there is one. A software adapter only slows things down: it is used when asked for.
///
/// # Errors
/// `wgpu` where there is no adapter at all.
pub fn choose(choice: BackendChoice) -> Result<(Device, String)> {
    match choice {
        BackendChoice::Cpu => Ok((Device::Cpu, format!("cpu, {} (asked for)", threads()))),
        BackendChoice::Wgpu => match adapters().first() {
            Some(adapter) => {
                Ok((Device::Wgpu(Gpu::new(Choice::Any { name: None })), format!("wgpu on {adapter} (asked for)")))
            }
            None => Err(Error::user("--backend wgpu: this machine has no Vulkan, Metal or DX12 adapter").remedy(
                "install the GPU's driver (or, on Debian, the software adapter: mesa-vulkan-drivers libvulkan1), or use --backend cpu",
            )),
        },
        BackendChoice::Sim => Err(Error::user("--backend sim is no device: nothing is computed on it").remedy(
            "use it in mtnlg train, which rehearses a step; or mtnlg plan",
        )),
        #[cfg(any(feature = "cuda", feature = "cuda-13"))]
        BackendChoice::Cuda => match backend_cuda::devices(&cuda_settings(Default::default())) {
            Ok(gpus) if !gpus.is_empty() => {
                let line = format!("cuda on {} GPU(s), the first {} (asked for)", gpus.len(), gpus[0]);
                Ok((Device::Cuda(backend_cuda::Products::default()), line))
            }
            Ok(_) => Err(Error::user("--backend cuda: the driver shows no GPU").remedy("use --backend cpu or wgpu")),
            Err(error) => Err(Error::user(format!("--backend cuda: {error}")).remedy("use --backend cpu or wgpu")),
        },
        #[cfg(not(any(feature = "cuda", feature = "cuda-13")))]
        BackendChoice::Cuda => Err(Error::user("--backend cuda: this program was built without CUDA")
            .remedy("build it with --features cuda (CUDA 12) or cuda-13, or use --backend cpu or wgpu")),
        BackendChoice::Auto => Ok(automatic(&adapters())),
    }
}

/// Where CUDA's libraries are, `MTNLG_CUDA_LIBRARIES` or wherever the system finds them; compiled kernels are kept in the cache folder.
#[cfg(any(feature = "cuda", feature = "cuda-13"))]
pub fn cuda_settings(products: backend_cuda::Products) -> backend_cuda::Settings {
    let libraries = std::env::var_os("MTNLG_CUDA_LIBRARIES").map(Into::into);
    let cache = Some(cache_dir().join("kernels"));
    backend_cuda::Settings { libraries, cache, products, ..Default::default() }
}

fn automatic(adapters: &[AdapterInfo]) -> (Device, String) {
    match adapters.iter().find(|adapter| !adapter.software) {
        Some(adapter) => {
            (Device::Wgpu(Gpu::new(Choice::Hardware)), format!("wgpu on {adapter} (the GPU found)"))
        }
        None if adapters.is_empty() => (Device::Cpu, format!("cpu, {} (no GPU found)", threads())),
        None => {
            let software = &adapters[0].name;
            let line = format!(
                "cpu, {} (no GPU found; {software} is software, --backend wgpu would use it)",
                threads()
            );
            (Device::Cpu, line)
        }
    }
}

/// What `mtnlg devices` prints: every device, and which one `auto` takes.
pub fn table() -> String {
    let adapters = adapters();
    let (chosen, why) = automatic(&adapters);
    let mut text = format!("cpu     {}\n", threads());
    for adapter in &adapters {
        let mib = |bytes: u64| bytes >> 20;
        let note = if adapter.software { "only when asked for by --backend wgpu" } else { "hardware" };
        text.push_str(&format!(
            "wgpu    {adapter}; buffers to {} MiB, bindings to {} MiB; {note}\n",
            mib(adapter.max_buffer),
            mib(adapter.max_binding)
        ));
    }
    text.push_str(&cuda_table());
    let name = if chosen == Device::Cpu { "cpu" } else { "wgpu" };
    text.push_str(&format!("auto    {name}: {why}\n"));
    text
}

/// The GPUs that CUDA shows, or why there are none.
#[cfg(any(feature = "cuda", feature = "cuda-13"))]
fn cuda_table() -> String {
    let settings = cuda_settings(backend_cuda::Products::Fastest);
    match backend_cuda::devices(&settings) {
        Ok(gpus) => {
            let gpu = |gpu| format!("cuda    {gpu}; only when asked for by --backend cuda\n");
            let products = match backend_cuda::cublaslt_version(&settings) {
                Ok((major, minor, patch)) => {
                    format!(
                        "matrix products of training in fast numerics by cuBLASLt {major}.{minor}.{patch}"
                    )
                }
                Err(error) => format!("all matrix products by kernels of our own: {error}"),
            };
            gpus.iter().map(gpu).collect::<String>() + &format!("cuda    {products}\n")
        }
        Err(error) => format!("cuda    {error}\n"),
    }
}

/// A build without CUDA has nothing to say of it.
#[cfg(not(any(feature = "cuda", feature = "cuda-13")))]
fn cuda_table() -> String {
    String::new()
}

fn threads() -> String {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, software: bool) -> AdapterInfo {
        AdapterInfo {
            name: name.to_owned(),
            api: "vulkan",
            software,
            subgroup_lanes: None,
            f16: false,
            cooperative_matrices: false,
            cooperative_f16: false,
            timestamps: false,
            driver: "driver 1".to_owned(),
            max_buffer: 1 << 28,
            max_binding: 1 << 27,
        }
    }

    #[test]
    fn auto_prefers_hardware_and_never_takes_software() {
        let (device, why) = automatic(&[adapter("Radeon", false), adapter("llvmpipe", true)]);
        assert_eq!(device, Device::Wgpu(Gpu::new(Choice::Hardware)));
        assert!(why.contains("Radeon"), "{why}");
        let (device, why) = automatic(&[adapter("llvmpipe", true)]);
        assert_eq!(device, Device::Cpu);
        assert!(why.contains("llvmpipe is software"), "{why}");
        assert_eq!(automatic(&[]).0, Device::Cpu);
    }
}
