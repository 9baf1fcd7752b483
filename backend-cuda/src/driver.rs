//! The driver's calls, as results: the one place that calls it.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::null_mut;

use backend::{Error, Result};
use cudarc::driver::sys::{self, CUcontext, CUdeviceptr, CUevent, CUfunction, CUmodule, CUresult, CUstream};

use crate::libraries::{Dependency, Settings};

/// What a call answered, in the driver's words.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub call: &'static str,
    pub code: CUresult,
}

impl Failed {
    pub fn out_of_memory(&self) -> bool {
        self.code == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |get: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
            let mut text = std::ptr::null();
            // SAFETY: the driver is loaded, or there would be no failure; it answers with a constant string or leaves null.
            unsafe {
                get(self.code, &mut text);
                if text.is_null() {
                    "unknown".to_owned()
                } else {
                    CStr::from_ptr(text).to_string_lossy().into_owned()
                }
            }
        };
        write!(f, "{}: {} ({})", self.call, text(sys::cuGetErrorName), text(sys::cuGetErrorString))
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        Error::Device { what: failed.to_string() }
    }
}

pub(crate) type Answer<T> = std::result::Result<T, Failed>;

fn check(call: &'static str, code: CUresult) -> Answer<()> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(Failed { call, code }),
    }
}

/// A driver call as an [`Answer`].
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        check(stringify!($name), sys::$name($($argument),*))
    };
}

/// Loads and starts the driver.
///
/// # Errors
/// [`Error::NoDevice`]: it is missing, or does not start (no GPU, a driver older than its library).
pub(crate) fn start(settings: &Settings) -> Result<()> {
    Dependency::Driver.load(settings)?;
    // SAFETY: the library is loaded.
    unsafe { call!(cuInit(0)) }.map_err(|failed| Error::NoDevice { what: failed.to_string() })
}

/// Major and minor version of CUDA that the driver is made for.
pub(crate) fn version() -> Answer<(i32, i32)> {
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { call!(cuDriverGetVersion(&mut version)) }?;
    Ok((version / 1000, version % 1000 / 10))
}

pub(crate) fn device_count() -> Answer<usize> {
    let mut count = 0;
    // SAFETY: writes one number.
    unsafe { call!(cuDeviceGetCount(&mut count)) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A device that the driver has, by its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordinal(pub c_int);

impl Ordinal {
    pub fn get(index: usize) -> Answer<Self> {
        let mut device = 0;
        // SAFETY: writes one number.
        unsafe { call!(cuDeviceGet(&mut device, index as c_int)) }?;
        Ok(Self(device))
    }

    pub fn name(self) -> Answer<String> {
        let mut name = [0u8; 256];
        // SAFETY: writes at most so many bytes, the last of them 0.
        unsafe { call!(cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, self.0)) }?;
        Ok(CStr::from_bytes_until_nul(&name)
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default())
    }

    pub fn memory(self) -> Answer<u64> {
        let mut bytes = 0;
        // SAFETY: writes one number.
        unsafe { call!(cuDeviceTotalMem_v2(&mut bytes, self.0)) }?;
        Ok(bytes as u64)
    }

    pub fn attribute(self, attribute: sys::CUdevice_attribute) -> Answer<i32> {
        let mut value = 0;
        // SAFETY: writes one number.
        unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, self.0)) }?;
        Ok(value)
    }

    /// Compute capability, major and minor.
    pub fn capability(self) -> Answer<(i32, i32)> {
        use sys::CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        Ok((self.attribute(MAJOR)?, self.attribute(MINOR)?))
    }

    /// Multiprocessors, at least one.
    pub fn multiprocessors(self) -> Answer<u32> {
        use sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as COUNT;
        Ok(self.attribute(COUNT)?.max(1) as u32)
    }

    /// How well this one reaches another's memory: 0 is best; `None` where it can't.
    pub fn link(self, other: Self) -> Option<i32> {
        use sys::CUdevice_P2PAttribute_enum::{
            CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED as ACCESS,
            CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK as RANK,
        };
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: writes one number.
            unsafe { call!(cuDeviceGetP2PAttribute(&mut value, attribute, self.0, other.0)) }.map(|()| value)
        };
        (get(ACCESS).ok()? != 0).then(|| get(RANK).ok()).flatten()
    }
}

/// A device's primary context. All calls below need it to be the thread's current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context(CUcontext);

// SAFETY: a handle; the driver serves any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

thread_local! {
    static CURRENT: std::cell::Cell<CUcontext> = const { std::cell::Cell::new(null_mut()) };
}

impl Context {
    /// Retained for good: a process has a handful of devices.
    pub fn retain(device: Ordinal) -> Answer<Self> {
        let mut context = null_mut();
        // SAFETY: writes one handle.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut context, device.0)) }?;
        Ok(Self(context))
    }

    /// Makes it the calling thread's, if it is not.
    pub fn enter(self) -> Answer<()> {
        if CURRENT.get() != self.0 {
            // SAFETY: a live context.
            unsafe { call!(cuCtxSetCurrent(self.0)) }?;
            CURRENT.set(self.0);
        }
        Ok(())
    }
}

/// Device memory.
pub(crate) fn allocate(bytes: usize) -> Answer<CUdeviceptr> {
    let mut at = 0;
    // SAFETY: writes one address.
    unsafe { call!(cuMemAlloc_v2(&mut at, bytes)) }?;
    Ok(at)
}

/// Gives it back once the device is done with it.
pub(crate) fn free(at: CUdeviceptr) -> Answer<()> {
    // SAFETY: the caller's, from `allocate`; the driver waits for work that uses it.
    unsafe { call!(cuMemFree_v2(at)) }
}

/// A queue of work on a device, not ordered with the default one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(pub CUstream);

// SAFETY: a handle; the driver serves any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub fn new() -> Answer<Self> {
        let mut stream = null_mut();
        // SAFETY: writes one handle.
        unsafe {
            call!(cuStreamCreate(&mut stream, sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32))
        }?;
        Ok(Self(stream))
    }

    pub fn synchronize(self) -> Answer<()> {
        // SAFETY: a live stream.
        unsafe { call!(cuStreamSynchronize(self.0)) }
    }

    /// Copies host memory to the device. It is pageable: the driver has taken what it needs of it when the call returns.
    pub fn upload(self, to: CUdeviceptr, from: &[u8]) -> Answer<()> {
        // SAFETY: the caller's memory on the device is as long.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), self.0)) }
    }

    /// Copies device memory to the host, and waits for it.
    pub fn download(self, from: CUdeviceptr, to: &mut [u8]) -> Answer<()> {
        // SAFETY: the caller's memory on the device is as long, and nobody looks at `to` before the stream is done.
        unsafe { call!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), self.0)) }?;
        self.synchronize()
    }

    pub fn copy(self, from: CUdeviceptr, to: CUdeviceptr, bytes: usize) -> Answer<()> {
        // SAFETY: windows of the caller's buffers, apart from each other.
        unsafe { call!(cuMemcpyDtoDAsync_v2(to, from, bytes, self.0)) }
    }

    /// Has what is enqueued here later wait for what the event was recorded behind.
    pub fn wait(self, event: &Event) -> Answer<()> {
        // SAFETY: both live.
        unsafe { call!(cuStreamWaitEvent(self.0, event.0, 0)) }
    }
}

/// A point in a stream.
#[derive(Debug)]
pub(crate) struct Event(CUevent);

// SAFETY: a handle; the driver serves any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub fn new() -> Answer<Self> {
        let mut event = null_mut();
        // SAFETY: writes one handle.
        unsafe { call!(cuEventCreate(&mut event, sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32)) }?;
        Ok(Self(event))
    }

    pub fn record(&self, stream: Stream) -> Answer<()> {
        // SAFETY: both live.
        unsafe { call!(cuEventRecord(self.0, stream.0)) }
    }

    /// Whether the stream has passed it.
    pub fn passed(&self) -> Answer<bool> {
        // SAFETY: a live event.
        match unsafe { call!(cuEventQuery(self.0)) } {
            Ok(()) => Ok(true),
            Err(failed) if failed.code == CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(failed) => Err(failed),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and the driver keeps what a stream still needs of it. A failure is the device's, and is found elsewhere.
        let _ = unsafe { call!(cuEventDestroy_v2(self.0)) };
    }
}

/// A kernel, ready to launch. Its module stays loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(CUfunction);

// SAFETY: a handle; the driver serves any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Loaded code, for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module(CUmodule);

// SAFETY: a handle; the driver serves any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    pub fn load(image: &[u8]) -> Answer<Self> {
        let mut module = null_mut();
        // SAFETY: a whole image, as NVRTC made it: it knows its own length; text ends with 0.
        unsafe { call!(cuModuleLoadData(&mut module, image.as_ptr().cast())) }?;
        Ok(Self(module))
    }

    pub fn function(self, name: &str) -> Answer<Function> {
        let name = CString::new(name).unwrap_or_default();
        let mut function = null_mut();
        // SAFETY: a live module and a string that ends.
        unsafe { call!(cuModuleGetFunction(&mut function, self.0, name.as_ptr())) }?;
        Ok(Function(function))
    }
}

impl Function {
    /// Allows launches with so much dynamic shared memory.
    pub fn allow_shared(self, bytes: u32) -> Answer<()> {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
        // SAFETY: a live function.
        unsafe { call!(cuFuncSetAttribute(self.0, SHARED, bytes as c_int)) }
    }

    /// Enqueues it.
    ///
    /// # Safety
    /// `params` is the struct that the kernel takes, every address in it holds what the kernel reads and writes through it, and the context is current.
    pub unsafe fn launch<P: Copy>(
        self,
        stream: Stream,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        params: &P,
    ) -> Answer<()> {
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        let [x, y, z] = grid;
        // SAFETY: the caller's word; the driver copies the arguments before it returns.
        unsafe {
            call!(cuLaunchKernel(
                self.0,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared,
                stream.0,
                arguments.as_mut_ptr(),
                null_mut()
            ))
        }
    }
}
