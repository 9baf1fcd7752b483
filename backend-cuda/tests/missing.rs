//! What is missing is an error that names the file.

use backend::Error;
use backend_cuda::{CudaBackend, Settings, cublaslt_version, devices, nccl_version, report};

#[test]
fn missing_libraries_are_named() {
    let settings = Settings { libraries: Some("/no/such/directory".into()), ..Settings::default() };
    let named = |result: Result<String, Error>, file: &str| match result {
        Err(Error::NoDevice { what }) => assert!(what.contains(file) && what.contains("install"), "{what}"),
        other => panic!("{other:?} for {file}"),
    };
    named(devices(&settings).map(|list| format!("{list:?}")), "libcuda.so.1");
    named(CudaBackend::new(0, &settings).map(|_| String::new()), "libcuda.so.1");
    named(report(&settings, (8, 0)).map(|list| format!("{list:?}")), "libnvrtc.so.1");
    named(nccl_version(&settings).map(|version| format!("{version:?}")), "libnccl.so.2");
    named(cublaslt_version(&settings).map(|version| format!("{version:?}")), "libcublasLt.so.1");
}

/// The real NCCL, which loads without a GPU: `MTNLG_NCCL` names its directory, unless the system's loader finds it.
#[test]
fn nccl_loads_where_it_is() {
    let settings =
        Settings { libraries: std::env::var_os("MTNLG_NCCL").map(Into::into), ..Settings::default() };
    let Some(version) = conformance::or_skip("nccl", nccl_version(&settings)) else { return };
    assert!(version >= (2, 7, 0), "{version:?}");
}
