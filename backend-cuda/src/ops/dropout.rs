use backend::Result;
use backend::ops::{Dropout, DropoutMask};
use backend::philox::{Stream, drop_below};

use crate::backend::CudaBackend;
use crate::launch::{at, fours, of, wide};
use crate::memory::CudaBuffer;

/// A mask as kernels have it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    seed: u64,
    stream: u64,
    below: u32,
    scale: f32,
}

impl Mask {
    /// Keeps all.
    pub const NONE: Self = Self { seed: 0, stream: 0, below: 0, scale: 1.0 };

    pub fn new(stream: Stream, p: f32, scale: f32) -> Self {
        Self { seed: stream.seed, stream: stream.stream, below: drop_below(p), scale }
    }

    pub fn of(mask: &DropoutMask) -> Self {
        Self::new(mask.stream, mask.p, mask.scale())
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    x: u64,
    y: u64,
    n: u64,
    first: u64,
    mask: Mask,
    wide: u32,
}

impl CudaBackend {
    pub(crate) fn do_dropout(&self, args: Dropout<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let Dropout { x, y, mask } = args;
        let params = Params {
            x: at(x),
            y: at(y),
            n: n as u64,
            first: mask.first,
            mask: Mask::of(&mask),
            wide: wide(&[x, y]),
        };
        self.launch("dropout", (of("dropout.cu", x.dtype()), "dropout"), fours(n), 256, params)
    }
}
