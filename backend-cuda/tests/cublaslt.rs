//! Matrix products by cuBLASLt, on the CPU twin: the contract's, the same bits again, one algorithm a product, nothing left behind; and faults are found.
//!
//! A fault is planted by the twin's library, which then takes calls as a host that errs would have made them (`TWIN_CUBLASLT_FAULT`); each runs in a process of its own,
//! which runs the ignored test `child`.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]
#![allow(unsafe_code, reason = "calls into the twin's library: each block says why it is sound")]

mod twin;

use std::ffi::{c_char, c_int, c_void};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu};
use backend::{Backend, Class, DType, Shape, Tensor};
use backend_cuda::{CudaBackend, CudaBuffer, Products, Settings};
use conformance::{Case, Failure, ops, or_skip};
use libloading::Library;

/// One test at a time: the twin counts for all of them.
static TURN: Mutex<()> = Mutex::new(());

/// The twin with products by its cuBLASLt.
fn settings() -> Option<Settings> {
    Some(Settings { products: Products::CublasLt, ..or_skip("cuda-twin", twin::settings())? })
}

/// The twin's own functions.
struct Twin(Library);

impl Twin {
    fn of(settings: &Settings) -> Self {
        let at = settings.libraries.as_ref().unwrap();
        // The driver first: the other library finds it by its name once it is loaded.
        // SAFETY: the twin's libraries.
        let [driver, products] =
            ["libcuda.so", "libcublasLt.so"].map(|name| unsafe { Library::new(at.join(name)) }.unwrap());
        std::mem::forget(driver);
        Self(products)
    }

    /// What lives of that kind, or was called: see cublaslt.cpp.
    fn count(&self, kind: u8) -> u64 {
        // SAFETY: its signature.
        unsafe {
            let count: libloading::Symbol<'_, unsafe extern "C" fn(c_char) -> u64> =
                self.0.get(b"twin_cublaslt_count\0").unwrap();
            count(kind as c_char)
        }
    }

    fn descriptors(&self) -> u64 {
        b"olp".iter().map(|kind| self.count(*kind)).sum()
    }
}

fn bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    let narrow = |x: &f32| ((x.to_bits() >> 16) as u16).to_ne_bytes().to_vec();
    let wide = |x: &f32| x.to_ne_bytes().to_vec();
    values.iter().flat_map(|x| if dtype == DType::F32 { wide(x) } else { narrow(x) }).collect()
}

fn put(gpu: &CudaBackend, dtype: DType, shape: &[usize], seed: u64) -> Tensor<CudaBuffer> {
    let tensor = gpu.alloc(Class::Workspace, dtype, Shape::new(shape)).unwrap();
    let stream = backend::philox::Stream { seed, stream: 1 };
    let values: Vec<f32> = (0..tensor.len() as u64).map(|i| stream.normal(i) as f32).collect();
    gpu.write(tensor.view(), &bytes(&values, dtype)).unwrap();
    tensor
}

fn get(gpu: &CudaBackend, tensor: &Tensor<CudaBuffer>) -> Vec<u8> {
    let mut bytes = vec![0; tensor.view().bytes()];
    gpu.read(tensor.view(), &mut bytes).unwrap();
    bytes
}

/// What fails of the operation's cases.
fn failed<C: Case>(gpu: &CudaBackend, cases: &[C], filter: &str) -> Vec<(String, Failure)> {
    let cases = cases.iter().filter(|case| case.id().contains(filter));
    cases.filter_map(|case| Some((case.id(), case.run(gpu).err()?))).collect()
}

/// Every case of the conformance suite, most of them made by cuBLASLt.
#[test]
fn products_are_those_of_the_contract() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(settings) = settings() else { return };
    let (gpu, twin) = (CudaBackend::new(0, &settings).unwrap(), Twin::of(&settings));
    assert!(gpu.info().device.ends_with("products by cuBLASLt 12.9.0"), "{}", gpu.info().device);
    let before = twin.count(b'*');
    let mut all = failed(&gpu, &ops::matmul::cases(), "");
    all.extend(failed(&gpu, &ops::matmul::bias_cases(), ""));
    all.extend(failed(&gpu, &ops::matmul::bias_gelu_cases(), ""));
    assert!(all.is_empty(), "{all:?}");
    // Each case runs twice; without terms or results cuBLASLt is not asked.
    let cases =
        ops::matmul::cases().len() + ops::matmul::bias_cases().len() + ops::matmul::bias_gelu_cases().len();
    let made = twin.count(b'*') - before;
    assert!(made >= cases as u64, "{made} products of cuBLASLt for {cases} cases");
}

/// One rank's products: plain, batched and added to, with bias, with GELU in the same pass.
struct Work {
    tensors: Vec<Tensor<CudaBuffer>>,
}

impl Work {
    fn new(gpu: &CudaBackend) -> Self {
        let bf16 = |shape: &[usize], seed| put(gpu, DType::Bf16, shape, seed);
        let tensors = vec![
            bf16(&[48, 72], 1),
            bf16(&[40, 72], 2),
            bf16(&[40], 3),
            bf16(&[48, 40], 4),
            bf16(&[48, 40], 5),
            bf16(&[48, 40], 6),
            put(gpu, DType::F32, &[40, 72], 7),
        ];
        Self { tensors }
    }

    fn run(&self, gpu: &CudaBackend) {
        let [x, w, bias, y, pre, activated, dw] =
            <[_; 7]>::try_from(self.tensors.iter().map(Tensor::view).collect::<Vec<_>>()).ok().unwrap();
        gpu.matmul_bias(MatmulBias { x, w, bias, y }).unwrap();
        gpu.matmul_bias_gelu(MatmulBiasGelu { x, w, bias, pre, y: activated }).unwrap();
        // The gradient of the weights.
        gpu.matmul(Matmul { a: y, b: x, c: dw, trans_a: true, trans_b: false, alpha: 1.0, beta: 1.0 })
            .unwrap();
    }
}

#[test]
fn one_algorithm_a_product_the_same_bits_and_nothing_left() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(settings) = settings() else { return };
    let twin = Twin::of(&settings);
    assert_eq!((twin.count(b'h'), twin.descriptors()), (0, 0));
    let mut runs = Vec::new();
    for _ in 0..2 {
        let gpu = CudaBackend::new(0, &settings).unwrap();
        assert_eq!(gpu.usage(Class::Workspace).current, 8 << 20, "the workspace is metered");
        let work = Work::new(&gpu);
        let (asked, used) = (twin.count(b'?'), gpu.usage(Class::Workspace).peak);
        work.run(&gpu);
        assert_eq!(twin.count(b'?') - asked, 3);
        let descriptors = twin.descriptors();
        work.run(&gpu);
        // What is known is not asked again, and nothing is allocated.
        assert_eq!((twin.count(b'?') - asked, twin.descriptors()), (3, descriptors));
        assert_eq!(gpu.usage(Class::Workspace).peak, used);
        runs.push(work.tensors.iter().map(|tensor| get(&gpu, tensor)).collect::<Vec<_>>());
        drop((work, gpu));
        assert_eq!((twin.count(b'h'), twin.descriptors()), (0, 0), "what was made is destroyed");
    }
    assert!(runs[0] == runs[1]);
}

/// Ranks of one GPU share the library's handle and its workspace, as they share the stream.
#[test]
fn ranks_of_one_gpu_share_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(settings) = settings() else { return };
    let twin = Twin::of(&settings);
    let ranks = CudaBackend::cluster(3, std::time::Duration::from_secs(60), 0, &settings).unwrap();
    assert_eq!(twin.count(b'h'), 1);
    let used = |rank: &backend::local::LocalCommunicator<CudaBackend>| {
        rank.backend().usage(Class::Workspace).current
    };
    assert_eq!(ranks.iter().map(used).collect::<Vec<_>>(), [8 << 20, 0, 0]);
}

/// Without the library: an error that names it where it is asked for, kernels of our own where it is not.
#[test]
fn without_it_kernels_of_our_own() {
    let Some(settings) = settings() else { return };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // The same files by other names: the loader takes them for what is loaded already.
    let bare = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["libcuda.so", "libnvrtc.so"] {
        std::fs::hard_link(settings.libraries.as_ref().unwrap().join(name), bare.path().join(name)).unwrap();
    }
    let settings = Settings { libraries: Some(bare.path().to_owned()), ..settings };
    match CudaBackend::new(0, &settings) {
        Err(backend::Error::NoDevice { what }) => {
            assert!(what.contains("libcublasLt.so.1") && what.contains("install"), "{what}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened without the library"),
    }
    let gpu = CudaBackend::new(0, &Settings { products: Products::Fastest, ..settings }).unwrap();
    assert!(!gpu.info().device.contains("cuBLASLt"), "{}", gpu.info().device);
    assert_eq!(gpu.usage(Class::Workspace).current, 0);
}

/// The twin's library refuses what a host must not do.
#[test]
fn the_twin_refuses() {
    type Raw = *mut c_void;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(settings) = settings() else { return };
    let twin = Twin::of(&settings);
    // SAFETY: the twin's functions, by their signatures; what it refuses it does not touch.
    unsafe {
        let create: libloading::Symbol<'_, unsafe extern "C" fn(*mut Raw, c_int, c_int) -> c_int> =
            twin.0.get(b"cublasLtMatmulDescCreate\0").unwrap();
        let destroy: libloading::Symbol<'_, unsafe extern "C" fn(Raw) -> c_int> =
            twin.0.get(b"cublasLtMatmulDescDestroy\0").unwrap();
        let set: libloading::Symbol<'_, unsafe extern "C" fn(Raw, c_int, *const c_void, usize) -> c_int> =
            twin.0.get(b"cublasLtMatmulDescSetAttribute\0").unwrap();
        let mut operation = null_mut();
        // Sums in 16 bits, TF32.
        assert_ne!(create(&mut operation, 64, 2), 0);
        assert_ne!(create(&mut operation, 77, 0), 0);
        assert_eq!(create(&mut operation, 68, 0), 0);
        let value = 1i64;
        assert_ne!(set(operation, 3, (&raw const value).cast(), 8), 0, "an attribute of another length");
        assert_ne!(set(operation, 99, (&raw const value).cast(), 4), 0, "an unknown attribute");
        assert_ne!(set(null_mut(), 3, (&raw const value).cast(), 4), 0, "null");
        assert_eq!(twin.count(b'o'), 1, "a descriptor that is not destroyed is counted");
        assert_eq!(destroy(operation), 0);
        assert_ne!(destroy(operation), 0, "destroyed twice");
        assert_eq!(twin.descriptors(), 0);
    }
}

/// The fault, and an operation whose cases find it.
const FAULTS: [(&str, &str); 5] = [
    ("leading", "matmul"),
    ("transposes", "matmul"),
    ("bias", "matmul_bias"),
    ("beta", "matmul"),
    ("key", "matmul"),
];

const FOUND: &str = "the fault makes a case fail";

/// What a child says of its cases, with a fault or without.
fn run(fault: Option<&str>, operation: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--ignored", "--nocapture"]).env("FAULT_OPERATION", operation);
    match fault {
        Some(fault) => child.env("TWIN_CUBLASLT_FAULT", fault),
        None => child.env_remove("TWIN_CUBLASLT_FAULT"),
    };
    let output = child.output().unwrap();
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn cuda_cublaslt_faults_are_found() {
    if settings().is_none() {
        return;
    }
    for operation in ["matmul", "matmul_bias"] {
        let text = run(None, operation);
        assert!(text.contains("1 passed") && !text.contains(FOUND), "{operation} without a fault:\n{text}");
    }
    for (fault, operation) in FAULTS {
        let text = run(Some(fault), operation);
        assert!(text.contains(FOUND), "{fault} was not found:\n{text}");
    }
}

/// One operation, as the environment says; only `cuda_cublaslt_faults_are_found` runs it.
#[test]
#[ignore = "run by cuda_cublaslt_faults_are_found"]
fn child() {
    let gpu = CudaBackend::new(0, &settings().unwrap()).unwrap();
    let failed = match std::env::var("FAULT_OPERATION").unwrap().as_str() {
        "matmul" => failed(&gpu, &ops::matmul::cases(), "dt=f32"),
        "matmul_bias" => failed(&gpu, &ops::matmul::bias_cases(), "dt=f32"),
        other => panic!("no operation {other}"),
    };
    if let Some((id, failure)) = failed.first() {
        println!("{FOUND}: {id}: {failure}");
    }
}
