//! `libnccl.so.2`: its functions, by name, and what they answer. (The bindings look for other file names, and panic without one.)

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use backend::{DType, Error, Result};
use libloading::Library;

use crate::driver::Stream;
use crate::libraries::{Dependency, Settings, functions};

/// What ranks of one communicator must share to find each other.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId(pub [u8; 128]);

type Raw = *mut c_void;

/// NCCL's number for a type.
pub(crate) fn number(dtype: DType) -> c_int {
    match dtype {
        DType::U32 => 3,
        DType::F16 => 6,
        DType::F32 => 7,
        DType::Bf16 => 9,
    }
}

functions! {
    /// NCCL's of version 2, as it has kept them since 2.7.
    version = ncclGetVersion(*mut c_int);
    unique_id = ncclGetUniqueId(*mut UniqueId);
    init = ncclCommInitRank(*mut Raw, c_int, UniqueId, c_int);
    destroy = ncclCommDestroy(Raw);
    abort = ncclCommAbort(Raw);
    async_error = ncclCommGetAsyncError(Raw, *mut c_int);
    all_reduce = ncclAllReduce(*const c_void, *mut c_void, usize, c_int, c_int, Raw, Raw);
    reduce_scatter = ncclReduceScatter(*const c_void, *mut c_void, usize, c_int, c_int, Raw, Raw);
    all_gather = ncclAllGather(*const c_void, *mut c_void, usize, c_int, Raw, Raw);
    broadcast = ncclBroadcast(*const c_void, *mut c_void, usize, c_int, c_int, Raw, Raw);
    send = ncclSend(*const c_void, usize, c_int, c_int, Raw, Raw);
    recv = ncclRecv(*mut c_void, usize, c_int, c_int, Raw, Raw);
    group_start = ncclGroupStart();
    group_end = ncclGroupEnd();
    text = ncclGetErrorString(c_int) -> *const c_char;
}

/// A loaded NCCL.
pub(crate) struct Nccl {
    functions: Functions,
    _library: Library,
}

/// ncclInProgress: not an error.
const IN_PROGRESS: c_int = 7;
/// ncclSum.
const SUM: c_int = 0;

impl Nccl {
    /// # Errors
    /// [`Error::NoDevice`]: the library is missing, or lacks a function.
    pub fn load(settings: &Settings) -> Result<Arc<Self>> {
        let library = Dependency::Nccl.open(settings)?;
        // SAFETY: it is NCCL by its name.
        let functions = unsafe { Functions::of(&library) };
        let functions = functions
            .map_err(|error| Error::NoDevice { what: format!("libnccl.so.2 is too old: {error}") })?;
        Ok(Arc::new(Self { functions, _library: library }))
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: a constant string.
        let text = unsafe { CStr::from_ptr((self.functions.text)(code)) };
        Err(Error::Device { what: format!("{call}: {}", text.to_string_lossy()) })
    }

    pub fn version(&self) -> Result<(i32, i32, i32)> {
        let mut version = 0;
        // SAFETY: writes one number.
        self.check("ncclGetVersion", unsafe { (self.functions.version)(&mut version) })?;
        Ok((version / 10_000, version % 10_000 / 100, version % 100))
    }

    pub fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: writes one id.
        self.check("ncclGetUniqueId", unsafe { (self.functions.unique_id)(&mut id) })?;
        Ok(id)
    }

    /// Joins a communicator; waits for all its ranks.
    pub fn join(self: &Arc<Self>, id: UniqueId, ranks: usize, rank: usize) -> Result<Joined> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle; the context is current.
        let code = unsafe { (self.functions.init)(&mut raw, ranks as c_int, id, rank as c_int) };
        self.check("ncclCommInitRank", code)?;
        Ok(Joined { nccl: Arc::clone(self), raw, aborted: false.into() })
    }

    /// Everything that `calls` enqueues as one operation: sends and receives in it do not wait for each other.
    pub fn grouped(&self, calls: impl FnOnce() -> Result<()>) -> Result<()> {
        // SAFETY: no arguments; ended below whatever happens.
        self.check("ncclGroupStart", unsafe { (self.functions.group_start)() })?;
        let result = calls();
        // SAFETY: as above.
        let ended = self.check("ncclGroupEnd", unsafe { (self.functions.group_end)() });
        result.and(ended)
    }
}

/// This rank's end of one communicator. Its calls are for one thread at a time.
pub(crate) struct Joined {
    nccl: Arc<Nccl>,
    raw: Raw,
    aborted: std::sync::atomic::AtomicBool,
}

// SAFETY: a handle; NCCL serves any thread, one at a time, which the communicator sees to. Abort and the query of errors may come beside.
unsafe impl Send for Joined {}
// SAFETY: as above.
unsafe impl Sync for Joined {}

/// Addresses and length of a collective's operands.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub from: u64,
    pub to: u64,
    pub count: usize,
    pub dtype: DType,
}

impl Joined {
    pub fn all_reduce(&self, Operands { from, to, count, dtype }: Operands, stream: Stream) -> Result<()> {
        // SAFETY: windows of the caller's buffers, so long; the stream is this device's.
        let code = unsafe {
            (self.nccl.functions.all_reduce)(
                from as _,
                to as _,
                count,
                number(dtype),
                SUM,
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclAllReduce", code)
    }

    /// `count` is that of the part.
    pub fn reduce_scatter(
        &self,
        Operands { from, to, count, dtype }: Operands,
        stream: Stream,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        let code = unsafe {
            (self.nccl.functions.reduce_scatter)(
                from as _,
                to as _,
                count,
                number(dtype),
                SUM,
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclReduceScatter", code)
    }

    /// `count` is that of the part.
    pub fn all_gather(&self, Operands { from, to, count, dtype }: Operands, stream: Stream) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        let code = unsafe {
            (self.nccl.functions.all_gather)(
                from as _,
                to as _,
                count,
                number(dtype),
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclAllGather", code)
    }

    pub fn broadcast(
        &self,
        root: usize,
        Operands { from, to, count, dtype }: Operands,
        stream: Stream,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        let code = unsafe {
            let root = root as c_int;
            (self.nccl.functions.broadcast)(
                from as _,
                to as _,
                count,
                number(dtype),
                root,
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclBroadcast", code)
    }

    pub fn send(&self, to: usize, from: u64, count: usize, dtype: DType, stream: Stream) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        let code = unsafe {
            (self.nccl.functions.send)(
                from as _,
                count,
                number(dtype),
                to as c_int,
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclSend", code)
    }

    pub fn recv(&self, from: usize, to: u64, count: usize, dtype: DType, stream: Stream) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        let code = unsafe {
            (self.nccl.functions.recv)(
                to as _,
                count,
                number(dtype),
                from as c_int,
                self.raw,
                stream.0.cast(),
            )
        };
        self.nccl.check("ncclRecv", code)
    }

    /// What went wrong behind the calls, if anything has.
    pub fn async_error(&self) -> Result<()> {
        if self.aborted.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(());
        }
        let mut code = 0;
        // SAFETY: a live communicator; writes one number.
        self.nccl.check("ncclCommGetAsyncError", unsafe {
            (self.nccl.functions.async_error)(self.raw, &mut code)
        })?;
        self.nccl.check("NCCL", code)
    }

    /// Ends what is under way, here; the handle is gone for NCCL.
    pub fn abort(&self) {
        if !self.aborted.swap(true, std::sync::atomic::Ordering::AcqRel) {
            // SAFETY: live until now. There is nothing to do about a failure.
            let _ = unsafe { (self.nccl.functions.abort)(self.raw) };
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if !self.aborted.swap(true, std::sync::atomic::Ordering::AcqRel) {
            // SAFETY: live until now, and everything enqueued on it has been waited for.
            let _ = unsafe { (self.nccl.functions.destroy)(self.raw) };
        }
    }
}
