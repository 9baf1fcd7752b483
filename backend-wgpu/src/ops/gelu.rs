use backend::Result;
use backend::ops::{Gelu, GeluBackward};

use crate::backend::{WgpuBackend, flat};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_gelu(&self, args: Gelu<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let (x, y) = (flat(args.x)?, flat(args.y)?);
        for (first, n) in self.pieces(x.len()) {
            self.call("gelu", kernels::Gelu { n: n as u32 })
                .wide(n % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .write_wide(y.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_gelu_backward(&self, args: GeluBackward<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let (x, dy, dx) = (flat(args.x)?, flat(args.dy)?, flat(args.dx)?);
        for (first, n) in self.pieces(x.len()) {
            self.call("gelu_backward", kernels::GeluBackward { n: n as u32 })
                .wide(n % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .read_wide(dy.rows(first, n)?)
                .write_wide(dx.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }
}
