use backend::Result;
use backend::ops::AdamW;

use crate::backend::CudaBackend;
use crate::kernels::Variant;
use crate::launch::{at, fours, wide};
use crate::memory::CudaBuffer;

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    param: u64,
    grad: u64,
    m: u64,
    v: u64,
    n: u64,
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
    grad_scale: f32,
    corrections: [f32; 2],
    wide: u32,
}

impl CudaBackend {
    pub(crate) fn do_adamw(&self, args: AdamW<'_, CudaBuffer>) -> Result<()> {
        let n = args.check()?;
        let corrections = args.bias_corrections();
        let AdamW { param, grad, m, v, lr, beta1, beta2, eps, weight_decay, grad_scale, .. } = args;
        let params = Params {
            param: at(param),
            grad: at(grad),
            m: at(m),
            v: at(v),
            n: n as u64,
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            grad_scale,
            corrections,
            wide: wide(&[param, grad, m, v]),
        };
        self.launch("adamw", (Variant::plain("adamw.cu"), "adamw"), fours(n), 256, params)
    }
}
