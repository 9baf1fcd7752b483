//! The shared libraries: found, loaded before the bindings look for them, and named when they are missing.
//!
//! The bindings panic where a library is not found, so nothing calls them before [`Settings`] has loaded it. A library that is loaded is found by its name
//! afterwards, wherever it came from.

use std::path::PathBuf;

use backend::{Error, Result};
use libloading::Library;

/// Where things are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The directory of the shared libraries; `None`: wherever the system's loader finds them.
    pub libraries: Option<PathBuf>,
    /// The directory for compiled kernels; `None`: `mtnlg/kernels` in the user's cache.
    pub cache: Option<PathBuf>,
    /// Whether attention on tensor cores rounds probabilities, and the gradients of scores, to the operands' type before it multiplies by them, as is usual:
    /// two thirds of the work. Otherwise products are accurate to fp32, as the contract has it.
    pub rounded_attention: bool,
    /// Who makes matrix products.
    pub products: Products,
}

/// Who makes matrix products.
///
/// Only kernels of our own keep what `invariant` numerics ask for, an element's bits whatever the other extents are and wherever the operands begin: cuBLASLt
/// takes another kernel, and may cut the sum in pieces, by shape and alignment. Both give the same bits run after run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Kernels of our own.
    #[default]
    Kernels,
    /// cuBLASLt where it is found, and kernels of our own else.
    Fastest,
    /// cuBLASLt; that it is missing is an error.
    CublasLt,
}

/// The libraries that the backend calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// The driver.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Collectives between GPUs.
    Nccl,
    /// Matrix products.
    CublasLt,
}

impl Dependency {
    /// File names, the likeliest first.
    fn names(self) -> &'static [&'static str] {
        match self {
            #[cfg(windows)]
            Dependency::Driver => &["nvcuda.dll"],
            #[cfg(not(windows))]
            Dependency::Driver => &["libcuda.so.1", "libcuda.so"],
            Dependency::Nccl => &["libnccl.so.2", "libnccl.so"],
            #[cfg(windows)]
            Dependency::CublasLt => &["cublasLt64_13.dll", "cublasLt64_12.dll"],
            #[cfg(all(not(windows), feature = "cuda-13"))]
            Dependency::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
            #[cfg(all(not(windows), not(feature = "cuda-13")))]
            Dependency::CublasLt => &["libcublasLt.so.12", "libcublasLt.so.13", "libcublasLt.so"],
            #[cfg(windows)]
            Dependency::Nvrtc => &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"],
            #[cfg(all(not(windows), feature = "cuda-13"))]
            Dependency::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            #[cfg(all(not(windows), not(feature = "cuda-13")))]
            Dependency::Nvrtc => &["libnvrtc.so.12", "libnvrtc.so"],
        }
    }

    /// What it is, and where it comes from.
    fn remedy(self) -> &'static str {
        match self {
            Dependency::Driver => "the NVIDIA driver; install it, or choose another backend",
            Dependency::Nvrtc => {
                "NVRTC, which compiles the kernels; install the CUDA toolkit or the PyPI wheel nvidia-cuda-nvrtc, and have its directory in LD_LIBRARY_PATH"
            }
            Dependency::Nccl => {
                "NCCL, which ranks on several GPUs talk through; install it or the PyPI wheel nvidia-nccl, and have its directory in LD_LIBRARY_PATH"
            }
            Dependency::CublasLt => {
                "cuBLASLt, for matrix products; install the CUDA toolkit or the PyPI wheel nvidia-cublas, and have its directory in LD_LIBRARY_PATH"
            }
        }
    }

    /// Whether the bindings find it.
    fn found(self) -> bool {
        // SAFETY: they open libraries, whose initialisers are the vendor's.
        unsafe {
            match self {
                Dependency::Driver => cudarc::driver::sys::is_culib_present(),
                Dependency::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
                // Its symbols are taken from the library itself.
                Dependency::Nccl | Dependency::CublasLt => true,
            }
        }
    }

    /// Loads it for good.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with its file name.
    pub(crate) fn load(self, settings: &Settings) -> Result<()> {
        // It stays: the bindings keep pointers into it.
        self.open(settings).map(std::mem::forget)
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with its file name.
    pub(crate) fn open(self, settings: &Settings) -> Result<Library> {
        let mut problems = Vec::new();
        for name in self.names() {
            let path = settings.libraries.as_ref().map_or_else(|| PathBuf::from(name), |at| at.join(name));
            // SAFETY: a library of the vendor's; its initialisers may run.
            match unsafe { Library::new(&path) } {
                Ok(library) if self.found() => return Ok(library),
                Ok(_) => problems
                    .push(format!("{} is loaded, but not by a name that is looked for", path.display())),
                Err(error) => problems.push(error.to_string()),
            }
        }
        Err(Error::NoDevice {
            what: format!("{} was not found ({}): {}", self.names()[0], problems.join("; "), self.remedy()),
        })
    }
}

/// `Functions`: those of a library that are called, by name, with the library's own signatures; one that does not say what it returns returns a status.
macro_rules! functions {
    (@returns) => { std::ffi::c_int };
    (@returns $result:ty) => { $result };
    ($(#[$whose:meta])* $($field:ident = $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $(#[$whose])*
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> functions!(@returns $($result)?),)*
        }

        impl Functions {
            /// # Safety
            /// The library is the one whose functions these are.
            unsafe fn of(library: &libloading::Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: the library's own signatures.
                unsafe {
                    Ok(Self { $($field: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)* })
                }
            }
        }
    };
}

pub(crate) use functions;
