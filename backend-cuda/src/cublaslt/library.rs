//! `libcublasLt`: its functions, by name, what they answer, and its objects, each destroyed once. (The bindings panic where they do not find it.)

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use backend::{Error, Result};

use crate::libraries::{Dependency, Settings, functions};

pub(super) type Raw = *mut c_void;

/// How a product is made: cuBLASLt's own words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Algorithm([u64; 8]);

/// cublasLtMatmulHeuristicResult_t.
#[repr(C)]
#[derive(Clone, Copy)]
struct Found {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// What a product reads and writes: addresses on the device.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub a: u64,
    pub b: u64,
    pub c: u64,
}

/// Memory of the device that a product may use while it runs.
#[derive(Clone, Copy)]
pub(super) struct Workspace {
    pub address: u64,
    pub bytes: usize,
}

functions! {
    /// cuBLASLt's, of version 12 or 13.
    create = cublasLtCreate(*mut Raw);
    destroy = cublasLtDestroy(Raw);
    operation_create = cublasLtMatmulDescCreate(*mut Raw, c_int, c_int);
    operation_destroy = cublasLtMatmulDescDestroy(Raw);
    operation_set = cublasLtMatmulDescSetAttribute(Raw, c_int, *const c_void, usize);
    layout_create = cublasLtMatrixLayoutCreate(*mut Raw, c_int, u64, u64, i64);
    layout_destroy = cublasLtMatrixLayoutDestroy(Raw);
    layout_set = cublasLtMatrixLayoutSetAttribute(Raw, c_int, *const c_void, usize);
    preference_create = cublasLtMatmulPreferenceCreate(*mut Raw);
    preference_destroy = cublasLtMatmulPreferenceDestroy(Raw);
    preference_set = cublasLtMatmulPreferenceSetAttribute(Raw, c_int, *const c_void, usize);
    heuristic = cublasLtMatmulAlgoGetHeuristic(Raw, Raw, Raw, Raw, Raw, Raw, Raw, c_int, *mut Found, *mut c_int);
    matmul = cublasLtMatmul(
        Raw, Raw, *const c_void, *const c_void, Raw, *const c_void, Raw, *const c_void, *const c_void, Raw, *mut c_void, Raw, *const Algorithm, *mut c_void, usize,
        Raw
    );
    version = cublasLtGetVersion() -> usize;
    text = cublasLtGetStatusString(c_int) -> *const c_char;
}

/// CUBLAS_STATUS_NOT_SUPPORTED.
const NOT_SUPPORTED: c_int = 15;
/// CUDA_R_32F.
pub(super) const R_32F: c_int = 0;
/// CUBLAS_COMPUTE_32F: fp32 sums, and no TF32 factors.
const COMPUTE_32F: c_int = 68;

/// A loaded cuBLASLt.
pub(super) struct CublasLtLibrary {
    functions: Functions,
}

impl CublasLtLibrary {
    /// # Errors
    /// [`Error::NoDevice`]: the library is missing, or is not of version 12 or 13.
    pub fn load(settings: &Settings) -> Result<Arc<Self>> {
        let library = Dependency::CublasLt.open(settings)?;
        let none = |what: String| Error::NoDevice { what: format!("libcublasLt: {what}") };
        // SAFETY: it is cuBLASLt by its name.
        let functions = unsafe { Functions::of(&library) }.map_err(|error| none(error.to_string()))?;
        // It stays: what it starts is not made to be unloaded.
        std::mem::forget(library);
        let loaded = Self { functions };
        match loaded.version() {
            (12..=13, ..) => Ok(Arc::new(loaded)),
            (major, minor, _) => Err(none(format!(
                "version {major}.{minor} was found, and 12 or 13 is needed; install CUDA 12 or 13, or have its directory in LD_LIBRARY_PATH"
            ))),
        }
    }

    /// Major, minor, patch.
    pub fn version(&self) -> (i32, i32, i32) {
        // SAFETY: no arguments.
        let version = unsafe { (self.functions.version)() } as i32;
        (version / 10_000, version % 10_000 / 100, version % 100)
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: a constant string, or null.
        let text = unsafe {
            let text = (self.functions.text)(code);
            if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(Error::Device { what: format!("{call}: {text} (status {code})") })
    }
}

type Destroy = unsafe extern "C" fn(Raw) -> c_int;
type Set = unsafe extern "C" fn(Raw, c_int, *const c_void, usize) -> c_int;

/// One of cuBLASLt's objects, destroyed when dropped.
pub(super) struct Object {
    library: Arc<CublasLtLibrary>,
    raw: Raw,
    destroy: Destroy,
    set: Option<Set>,
}

// SAFETY: handles to host memory of cuBLASLt's, which any thread may use, one at a time: what holds them sees to it.
unsafe impl Send for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: ours, and live until now.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

impl Object {
    fn new(
        library: &Arc<CublasLtLibrary>,
        call: &'static str,
        destroy: Destroy,
        set: Option<Set>,
        create: impl FnOnce(&Functions, *mut Raw) -> c_int,
    ) -> Result<Self> {
        let mut raw = null_mut();
        library.check(call, create(&library.functions, &mut raw))?;
        Ok(Self { library: Arc::clone(library), raw, destroy, set })
    }

    /// The context, on the calling thread's device.
    pub fn handle(library: &Arc<CublasLtLibrary>) -> Result<Self> {
        let destroy = library.functions.destroy;
        // SAFETY: writes one handle.
        Self::new(library, "cublasLtCreate", destroy, None, |f, raw| unsafe { (f.create)(raw) })
    }

    /// A product with sums, `alpha` and `beta` in fp32.
    pub fn operation(library: &Arc<CublasLtLibrary>) -> Result<Self> {
        let Functions { operation_destroy, operation_set, .. } = library.functions;
        Self::new(library, "cublasLtMatmulDescCreate", operation_destroy, Some(operation_set), |f, raw| {
            // SAFETY: writes one handle.
            unsafe { (f.operation_create)(raw, COMPUTE_32F, R_32F) }
        })
    }

    /// A matrix by columns.
    pub fn layout(
        library: &Arc<CublasLtLibrary>,
        dtype: c_int,
        [rows, columns]: [usize; 2],
        leading: usize,
    ) -> Result<Self> {
        let Functions { layout_destroy, layout_set, .. } = library.functions;
        Self::new(library, "cublasLtMatrixLayoutCreate", layout_destroy, Some(layout_set), |f, raw| {
            // SAFETY: writes one handle.
            unsafe { (f.layout_create)(raw, dtype, rows as u64, columns as u64, leading as i64) }
        })
    }

    /// What is asked of an algorithm.
    pub fn preference(library: &Arc<CublasLtLibrary>) -> Result<Self> {
        let Functions { preference_destroy, preference_set, .. } = library.functions;
        Self::new(
            library,
            "cublasLtMatmulPreferenceCreate",
            preference_destroy,
            Some(preference_set),
            // SAFETY: writes one handle.
            |f, raw| unsafe { (f.preference_create)(raw) },
        )
    }

    /// Sets an attribute; `T` is as long as the attribute is.
    pub fn set<T: Copy>(&self, attribute: c_int, value: T) -> Result<()> {
        let Some(set) = self.set else { return Ok(()) };
        // SAFETY: a live object; the value is copied, and its length is checked there.
        let code = unsafe { set(self.raw, attribute, (&raw const value).cast(), size_of::<T>()) };
        self.library.check("cublasLt…SetAttribute", code)
    }

    /// This handle's best algorithm for a product, if it has any; `layouts` are those of the factors and of the result.
    pub fn best(
        &self,
        operation: &Self,
        [a, b, c]: &[Self; 3],
        preference: &Self,
    ) -> Result<Option<Algorithm>> {
        let mut count = 0;
        let mut found = Found {
            algorithm: Algorithm([0; 8]),
            workspace: 0,
            state: NOT_SUPPORTED,
            waves: 0.0,
            reserved: [0; 4],
        };
        // SAFETY: live objects; writes at most one result.
        let code = unsafe {
            let (a, b, c, preference) = (a.raw, b.raw, c.raw, preference.raw);
            let find = self.library.functions.heuristic;
            find(self.raw, operation.raw, a, b, c, c, preference, 1, &mut found, &mut count)
        };
        if code == NOT_SUPPORTED {
            return Ok(None);
        }
        self.library.check("cublasLtMatmulAlgoGetHeuristic", code)?;
        Ok((count > 0 && found.state == 0).then_some(found.algorithm))
    }

    /// Enqueues `c = alpha a b + beta c`, and what the operation has beside.
    ///
    /// # Safety
    /// The addresses hold matrices of these layouts, the workspace so many bytes, on the stream's device, whose context is current.
    pub unsafe fn multiply(
        &self,
        (operation, [a, b, c], algorithm): (&Self, &[Self; 3], &Algorithm),
        at: Addresses,
        [alpha, beta]: [f32; 2],
        workspace: Workspace,
        stream: Raw,
    ) -> Result<()> {
        // SAFETY: the caller's word; `alpha` and `beta` are read before the call returns.
        let code = unsafe {
            (self.library.functions.matmul)(
                self.raw,
                operation.raw,
                (&raw const alpha).cast(),
                at.a as _,
                a.raw,
                at.b as _,
                b.raw,
                (&raw const beta).cast(),
                at.c as _,
                c.raw,
                at.c as _,
                c.raw,
                algorithm,
                workspace.address as _,
                workspace.bytes,
                stream,
            )
        };
        self.library.check("cublasLtMatmul", code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real library, which loads without a GPU and then says that there is none: `MTNLG_CUBLASLT` names its directory, unless the system's loader finds it.
    #[test]
    fn cublaslt_loads_where_it_is() {
        let settings =
            Settings { libraries: std::env::var_os("MTNLG_CUBLASLT").map(Into::into), ..Settings::default() };
        let Some(library) = conformance::or_skip("cublaslt", CublasLtLibrary::load(&settings)) else {
            return;
        };
        let version = library.version();
        assert!(version >= (12, 0, 0), "{version:?}");
        // Descriptors need no GPU; their attributes have the lengths that are passed here.
        let operation = Object::operation(&library).unwrap();
        operation.set(super::super::TRANS_A, 1i32).unwrap();
        assert!(operation.set(super::super::TRANS_A, 1u8).is_err());
        let layout = Object::layout(&library, R_32F, [4, 2], 4).unwrap();
        layout.set(super::super::BATCH_COUNT, 3i32).unwrap();
        layout.set(super::super::BATCH_STRIDE, 8i64).unwrap();
        let preference = Object::preference(&library).unwrap();
        preference.set(super::super::MAX_WORKSPACE, 1024u64).unwrap();
        // A context needs one.
        if crate::devices(&Settings::default()).is_err() {
            match Object::handle(&library) {
                Err(Error::Device { what }) => assert!(what.contains("cublasLtCreate"), "{what}"),
                Ok(_) => panic!("a context without a GPU"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
