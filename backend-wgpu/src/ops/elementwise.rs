use backend::ops::{Add, Cast};
use backend::{DType, Result, View};

use crate::backend::{WgpuBackend, flat};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_fill(&self, x: View<'_, WgpuBuffer>, value: f32) -> Result<()> {
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
        let (src, dst) = match (as_words(src), as_words(dst)) {
            (Some(src), Some(dst)) => (src, dst),
            _ => (flat(src)?, flat(dst)?),
        };
        for (first, n) in self.pieces(src.len()) {
            self.call("copy", kernels::Copy { n: n as u32 })
                .wide(n % 4 == 0)
                .read_wide(src.rows(first, n)?)
                .write_wide(dst.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_scale(&self, x: View<'_, WgpuBuffer>, alpha: f32) -> Result<()> {
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
        if args.src.dtype() == args.dst.dtype() {
            return self.do_copy(args.src, args.dst);
        }
        let (src, dst) = (flat(args.src)?, flat(args.dst)?);
        for (first, n) in self.pieces(src.len()) {
            self.call("cast", kernels::Cast { n: n as u32 })
                .wide(n % 4 == 0)
                .read_wide(src.rows(first, n)?)
                .write_wide(dst.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }
}

/// The view as words, if it begins and ends with one.
fn as_words(view: View<'_, WgpuBuffer>) -> Option<View<'_, WgpuBuffer>> {
    let range = view.byte_range();
    match range.start.is_multiple_of(4) && range.end.is_multiple_of(4) {
        true => View::new(view.buffer(), DType::U32, range.start / 4, [range.len() / 4]).ok(),
        false => None,
    }
}
