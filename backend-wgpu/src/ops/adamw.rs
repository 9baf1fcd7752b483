use backend::Result;
use backend::ops::AdamW;

use crate::backend::WgpuBackend;
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_adamw(&self, args: AdamW<'_, WgpuBuffer>) -> Result<()> {
        let n = args.check()?;
        let [correction1, correction2] = args.bias_corrections();
        for (first, n) in self.pieces(n) {
            let params = kernels::AdamW {
                n: n as u32,
                lr: args.lr,
                beta1: args.beta1,
                beta2: args.beta2,
                rest1: 1.0 - args.beta1,
                rest2: 1.0 - args.beta2,
                eps: args.eps,
                weight_decay: args.weight_decay,
                grad_scale: args.grad_scale,
                correction1,
                correction2,
            };
            self.call("adamw", params)
                .wide(n % 4 == 0)
                .write_wide(args.param.rows(first, n)?)
                .read_wide(args.grad.rows(first, n)?)
                .write_wide(args.m.rows(first, n)?)
                .write_wide(args.v.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }
}
