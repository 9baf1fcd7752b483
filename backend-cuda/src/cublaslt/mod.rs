//! Matrix products by cuBLASLt, where they are asked for and it can make them.
//!
//! cuBLASLt's matrices lie by columns, ours by rows: `c = a b` by rows is `c^T = b^T a^T` by columns, in the same memory. So its first factor is our `b`, its second
//! our `a`, and what it has along a column (the bias, the input of GELU) we have along a row.
//!
//! # Invariants
//! * **fp32.** Sums are in fp32: algorithms that keep pieces of a sum in a narrower type, or add them in place, are excluded, as is TF32 for f32 factors.
//! * **One algorithm a product.** It is chosen by the library's heuristic, without measuring, the first time that [`Key`] comes along, and kept: the same bits run after
//!   run. The key has all that the choice may depend on.
//! * **No allocation in a step.** The workspace is allocated with the rank, and metered there; ranks of one GPU share it, as they share the stream that orders its use.
//! * **Never in `invariant`**: see [`Products`](crate::Products).

mod library;

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Class, DType, Result};

use crate::device::Device;
use crate::libraries::Settings;
use crate::memory::{CudaBuffer, Pool};
use library::{Addresses, Algorithm, CublasLtLibrary, Object, Workspace};

// Attributes, by cublasLt.h's names without their beginnings.
const TRANS_A: c_int = 3;
const TRANS_B: c_int = 4;
const EPILOGUE: c_int = 7;
const BIAS_POINTER: c_int = 8;
const EPILOGUE_AUX_POINTER: c_int = 11;
const EPILOGUE_AUX_LD: c_int = 12;
const BATCH_COUNT: c_int = 5;
const BATCH_STRIDE: c_int = 6;
const MAX_WORKSPACE: c_int = 1;
const REDUCTION_SCHEMES: c_int = 3;
const LEAST_ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];
const IMPLEMENTATIONS: c_int = 12;

/// CUBLAS_OP_T; N is 0.
const TRANSPOSED: i32 = 1;
/// CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, or one sequence: never in the result's type, and never in place.
const FP32_PIECES: u32 = 2;
/// CUBLASLT_NUMERICAL_IMPL_FLAGS_*: FMA, sums of 32 bits, factors of 32 bits.
const FP32: u64 = 1 | 2 << 8 | 8 << 16;
/// That, or tensor cores with factors of 16 bits as they are. Not TF32 (4 << 16), not sums of 16 bits (1 << 8).
const NARROW: u64 = FP32 | 2 | (1 | 2) << 16;
/// An alignment beyond this is not told to the heuristic, so that the choice does not hang on the pool.
const ALIGNMENT: u64 = 16;
/// Plans that are kept; a decoder's batches have many sizes.
const PLANS: usize = 4096;

/// What a product does to its result before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Epilogue {
    /// Nothing.
    None,
    /// Adds the bias, whose address is `bias`.
    Bias,
    /// Adds it, stores that at `pre`, and applies GELU (tanh).
    BiasGelu,
}

/// Everything that the choice of an algorithm may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    trans_a: bool,
    trans_b: bool,
    factors: DType,
    result: DType,
    /// Whether the result is read: an algorithm may have to.
    adds: bool,
    epilogue: Epilogue,
    /// Of `a`, `b`, `c`, `bias`, `pre`.
    alignments: [u64; 5],
}

/// A product by rows, its operands' addresses on the device; those that the epilogue does not have are 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub trans_a: bool,
    pub trans_b: bool,
    pub factors: DType,
    pub result: DType,
    pub alpha: f32,
    pub beta: f32,
    pub epilogue: Epilogue,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub bias: u64,
    pub pre: u64,
}

impl Product {
    fn key(&self) -> Key {
        let alignment = |address: u64| match address {
            0 => ALIGNMENT,
            _ => (1 << address.trailing_zeros()).min(ALIGNMENT),
        };
        let Self { batch, m, n, k, trans_a, trans_b, factors, result, epilogue, .. } = *self;
        Key {
            batch,
            m,
            n,
            k,
            trans_a,
            trans_b,
            factors,
            result,
            adds: self.beta != 0.0,
            epilogue,
            alignments: [self.a, self.b, self.c, self.bias, self.pre].map(alignment),
        }
    }

    /// Whether cuBLASLt has such products. It has none without terms, and does not read the factors where `alpha` is 0, which the contract multiplies by
    /// whatever they are. GELU's input needs rows of eight elements, on 16 bytes; in fp32 its GELU is not known to be accurate to fp32.
    pub fn fits(&self) -> bool {
        let gelu = || self.factors != DType::F32 && self.n.is_multiple_of(8) && self.pre.is_multiple_of(16);
        [self.batch, self.m, self.n, self.k].iter().all(|extent| (1..=i32::MAX as usize).contains(extent))
            && self.alpha != 0.0
            && (self.epilogue != Epilogue::BiasGelu || gelu())
    }
}

/// The type's number, as cudaDataType has it.
fn number(dtype: DType) -> c_int {
    match dtype {
        DType::F16 => 2,
        DType::Bf16 => 14,
        // No product has the last.
        DType::F32 | DType::U32 => library::R_32F,
    }
}

/// A product that is ready to be made.
struct Plan {
    operation: Object,
    /// Of cuBLASLt's first factor, its second, and the result.
    layouts: [Object; 3],
    algorithm: Algorithm,
}

/// cuBLASLt on one GPU.
pub(crate) struct CublasLt {
    /// `None`: there is no algorithm. Before the handle: it goes last.
    plans: Mutex<HashMap<Key, Option<Plan>>>,
    handle: Mutex<Object>,
    library: Arc<CublasLtLibrary>,
    device: Arc<Device>,
    _memory: CudaBuffer,
    workspace: Workspace,
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // What it holds on the device goes back there; where the device has failed that is of no matter.
        let _ = self.device.enter();
    }
}

impl CublasLt {
    /// Loads it, and allocates its workspace from that rank's pool.
    ///
    /// # Errors
    /// [`NoDevice`](backend::Error::NoDevice) where the library is missing; the device's.
    pub fn new(device: &Arc<Device>, pool: &Arc<Pool>, settings: &Settings) -> Result<Self> {
        let library = CublasLtLibrary::load(settings)?;
        device.enter()?;
        let handle = Object::handle(&library)?;
        // What cuBLAS itself takes on these devices.
        let bytes = if device.capability.0 >= 9 { 32 << 20 } else { 8 << 20 };
        let memory = pool.alloc(Class::Workspace, bytes)?;
        Ok(Self {
            plans: Mutex::default(),
            handle: Mutex::new(handle),
            library,
            device: Arc::clone(device),
            workspace: Workspace { address: memory.address(), bytes },
            _memory: memory,
        })
    }

    /// Major, minor, patch.
    pub fn version(&self) -> (i32, i32, i32) {
        self.library.version()
    }

    /// Enqueues the product, unless there is no algorithm for it: then `false`, and nothing is done.
    ///
    /// # Safety
    /// The addresses hold what the product says, on this GPU.
    pub unsafe fn multiply(&self, product: &Product) -> Result<bool> {
        self.device.enter()?;
        // One product at a time: a plan's operation holds the addresses of the call.
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let key = product.key();
        if plans.len() >= PLANS && !plans.contains_key(&key) {
            plans.clear();
        }
        let mut made = || -> Result<bool> {
            let plan = match plans.entry(key) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(self.plan(&handle, product, key)?)
                }
            };
            let Some(Plan { operation, layouts, algorithm }) = plan else { return Ok(false) };
            place(operation, product)?;
            let at = Addresses { a: product.b, b: product.a, c: product.c };
            let factors = [product.alpha, product.beta];
            let stream = self.device.stream.0.cast();
            // SAFETY: the caller's word; the layouts are the product's, and the workspace is this GPU's.
            unsafe { handle.multiply((operation, layouts, algorithm), at, factors, self.workspace, stream) }?;
            Ok(true)
        };
        made().inspect_err(|error| self.device.stop(error.clone()))
    }

    /// Describes the product, and asks for its algorithm.
    fn plan(&self, handle: &Object, product: &Product, key: Key) -> Result<Option<Plan>> {
        let Product { batch, m, n, k, trans_a, trans_b, factors, result, epilogue, .. } = *product;
        let operation = Object::operation(&self.library)?;
        operation.set(TRANS_A, if trans_b { TRANSPOSED } else { 0 })?;
        operation.set(TRANS_B, if trans_a { TRANSPOSED } else { 0 })?;
        let number_of = match epilogue {
            Epilogue::None => 1u32,
            Epilogue::Bias => 4,
            // GELU | AUX | BIAS
            Epilogue::BiasGelu => 32 | 128 | 4,
        };
        operation.set(EPILOGUE, number_of)?;
        if epilogue == Epilogue::BiasGelu {
            operation.set(EPILOGUE_AUX_LD, n as i64)?;
        }
        // The heuristic looks at how the pointers lie.
        place(&operation, product)?;
        // Rows by rows are columns by columns: [rows, columns] becomes [columns, rows], as long as a row apart.
        let layout = |dtype, rows: usize, columns: usize| -> Result<Object> {
            let layout = Object::layout(&self.library, number(dtype), [columns, rows], columns)?;
            layout.set(BATCH_COUNT, batch as i32)?;
            layout.set(BATCH_STRIDE, (rows * columns) as i64)?;
            Ok(layout)
        };
        let layouts = [
            if trans_b { layout(factors, n, k) } else { layout(factors, k, n) }?,
            if trans_a { layout(factors, k, m) } else { layout(factors, m, k) }?,
            layout(result, m, n)?,
        ];
        let preference = Object::preference(&self.library)?;
        preference.set(MAX_WORKSPACE, self.workspace.bytes as u64)?;
        preference.set(REDUCTION_SCHEMES, FP32_PIECES)?;
        preference.set(IMPLEMENTATIONS, if factors == DType::F32 { FP32 } else { NARROW })?;
        let [a, b, c, ..] = key.alignments;
        for (attribute, alignment) in LEAST_ALIGNMENTS.into_iter().zip([b, a, c, c]) {
            preference.set(attribute, alignment as u32)?;
        }
        let algorithm = handle.best(&operation, &layouts, &preference)?;
        Ok(algorithm.map(|algorithm| Plan { operation, layouts, algorithm }))
    }
}

/// Tells the operation the addresses of this call.
fn place(operation: &Object, product: &Product) -> Result<()> {
    if product.epilogue != Epilogue::None {
        operation.set(BIAS_POINTER, product.bias)?;
    }
    if product.epilogue == Epilogue::BiasGelu {
        operation.set(EPILOGUE_AUX_POINTER, product.pre)?;
    }
    Ok(())
}

/// The version of the cuBLASLt that is found: major, minor, patch.
///
/// # Errors
/// [`NoDevice`](backend::Error::NoDevice) where it is missing, with its file name.
pub fn cublaslt_version(settings: &Settings) -> Result<(i32, i32, i32)> {
    Ok(CublasLtLibrary::load(settings)?.version())
}
