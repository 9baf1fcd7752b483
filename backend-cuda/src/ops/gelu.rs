use backend::Result;
use backend::ops::{Gelu, GeluBackward};

use crate::backend::CudaBackend;
use crate::launch::{at, fours, of, wide};
use crate::memory::CudaBuffer;

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    x: u64,
    y: u64,
    n: u64,
    wide: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardParams {
    x: u64,
    dy: u64,
    dx: u64,
    n: u64,
    wide: u32,
}

impl CudaBackend {
    pub(crate) fn do_gelu(&self, args: Gelu<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let Gelu { x, y } = args;
        let params = Params { x: at(x), y: at(y), n: n as u64, wide: wide(&[x, y]) };
        self.launch("gelu", (of("gelu.cu", x.dtype()), "gelu"), fours(n), 256, params)
    }

    pub(crate) fn do_gelu_backward(&self, args: GeluBackward<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let GeluBackward { x, dy, dx } = args;
        let params =
            BackwardParams { x: at(x), dy: at(dy), dx: at(dx), n: n as u64, wide: wide(&[x, dy, dx]) };
        self.launch("gelu_backward", (of("gelu.cu", x.dtype()), "gelu_backward"), fours(n), 256, params)
    }
}
