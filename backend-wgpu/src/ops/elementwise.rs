use backend::ops::{Add, Cast};
use backend::{Result, View};

use crate::backend::{WgpuBackend, flat, only_f32};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_fill(&self, x: View<'_, WgpuBuffer>, value: f32) -> Result<()> {
        only_f32("fill", x)?;
        let x = flat(x)?;
        for (first, n) in self.pieces(x.len()) {
            self.call("fill", kernels::Fill { n: n as u32, bits: value.to_bits() })
                .wide(n % 4 == 0)
                .write_wide(x.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_copy(&self, src: View<'_, WgpuBuffer>, dst: View<'_, WgpuBuffer>) -> Result<()> {
        let (src, dst) = (flat(src)?, flat(dst)?);
        for (first, n) in self.pieces(src.len()) {
            self.call("copy", kernels::Copy { n: n as u32 })
                .bits()
                .wide(n % 4 == 0)
                .read_wide(src.rows(first, n)?)
                .write_wide(dst.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_scale(&self, x: View<'_, WgpuBuffer>, alpha: f32) -> Result<()> {
        only_f32("scale", x)?;
        let x = flat(x)?;
        for (first, n) in self.pieces(x.len()) {
            self.call("scale", kernels::Scale { n: n as u32, alpha })
                .wide(n % 4 == 0)
                .write_wide(x.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_add(&self, args: Add<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        only_f32("add", args.x)?;
        let (x, y) = (flat(args.x)?, flat(args.y)?);
        for (first, n) in self.pieces(x.len()) {
            self.call("add", kernels::Add { n: n as u32, alpha: args.alpha })
                .wide(n % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .write_wide(y.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_cast(&self, args: Cast<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        only_f32("cast", args.src)?;
        only_f32("cast", args.dst)?;
        self.do_copy(args.src, args.dst)
    }
}
