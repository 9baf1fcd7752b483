use backend::ops::{Add, Cast};
use backend::{Result, View};

use crate::backend::CudaBackend;
use crate::kernels::element;
use crate::launch::{at, fours, of, wide};
use crate::memory::CudaBuffer;

#[repr(C)]
#[derive(Clone, Copy)]
struct FillParams {
    x: u64,
    n: u64,
    value: f32,
    wide: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AddParams {
    x: u64,
    y: u64,
    n: u64,
    alpha: f32,
    wide: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CastParams {
    src: u64,
    dst: u64,
    n: u64,
    wide: u32,
}

impl CudaBackend {
    /// `fill` or `scale`.
    pub(crate) fn do_fill(&self, op: &'static str, x: View<'_, CudaBuffer>, value: f32) -> Result<()> {
        let params = FillParams { x: at(x), n: x.len() as u64, value, wide: wide(&[x]) };
        self.launch(op, (of("elementwise.cu", x.dtype()), op), fours(x.len()), 256, params)
    }

    pub(crate) fn do_add(&self, args: Add<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let Add { x, y, alpha } = args;
        let params = AddParams { x: at(x), y: at(y), n: n as u64, alpha, wide: wide(&[x, y]) };
        self.launch("add", (of("elementwise.cu", x.dtype()), "add"), fours(n), 256, params)
    }

    pub(crate) fn do_cast(&self, args: Cast<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let Cast { src, dst } = args;
        let params = CastParams { src: at(src), dst: at(dst), n: n as u64, wide: wide(&[src, dst]) };
        let variant = of("cast.cu", dst.dtype()).and("SOURCE", element(src.dtype()));
        self.launch("cast", (variant, "cast"), fours(n), 256, params)
    }
}
