//! Every operation with the kernels compiled by Tint and executed by Dawn: once with the kernels that a software adapter gets, once with a GPU's. Without Dawn
//! (`cargo xtask dawn`), skipped; with `MTNLG_REQUIRE=dawn`, failed.

use std::sync::Arc;
use std::time::Duration;

use backend_wgpu::{Choice, Dawn, Trial, WgpuBackend};
use conformance::or_skip;

fn open(as_gpu: bool) -> backend::Result<Arc<WgpuBackend>> {
    let trial = Trial { as_hardware: as_gpu, ..Trial::default() };
    WgpuBackend::on_trial(&Choice::Dawn(Dawn::installed()?), Duration::from_secs(300), &trial).map(Arc::new)
}

macro_rules! operations_of {
    ($name:ident, $as_gpu:literal) => {
        mod $name {
            use super::{Arc, WgpuBackend, open, or_skip};
            use std::sync::OnceLock;

            /// The backend that the tests share; `None` where there is no Dawn.
            fn dawn() -> Option<Arc<WgpuBackend>> {
                static BACKEND: OnceLock<backend::Result<Arc<WgpuBackend>>> = OnceLock::new();
                or_skip("dawn", BACKEND.get_or_init(|| open($as_gpu)).clone())
            }

            conformance::operation_tests!(dawn());
        }
    };
}

operations_of!(dawn, false);
operations_of!(dawn_as_gpu, true);
