use backend::Result;
use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};

use crate::backend::WgpuBackend;
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_cross_entropy_max(&self, args: CrossEntropyMax<'_, WgpuBuffer>) -> Result<()> {
        let [t, v] = args.check()?;
        if v == 0 {
            return self.do_fill(args.max, f32::NEG_INFINITY);
        }
        for (first, rows) in self.row_pieces(t, v) {
            self.call("cross_entropy_max", kernels::CrossEntropyMax { rows: rows as u32, v: v as u32 })
                .define("ROW_LANES", self.row_lanes(v))
                .wide(v % 4 == 0)
                .read_wide(args.logits.rows(first, rows)?)
                .write(args.max.rows(first, rows)?)
                .run(Grid::Each(rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_cross_entropy_sums(&self, args: CrossEntropySums<'_, WgpuBuffer>) -> Result<()> {
        let [t, v] = args.check()?;
        for (first, rows) in self.row_pieces(t, v) {
            let params = kernels::CrossEntropySums {
                rows: rows as u32,
                v: v as u32,
                first_column: args.first_column as u32,
            };
            self.call("cross_entropy_sums", params)
                .define("ROW_LANES", self.row_lanes(v))
                .wide(v % 4 == 0)
                .read_wide(args.logits.rows(first, rows)?)
                .read(args.targets.rows(first, rows)?)
                .read(args.max.rows(first, rows)?)
                .write(args.sum_exp.rows(first, rows)?)
                .write(args.target.rows(first, rows)?)
                .run(Grid::Each(rows))?;
        }
        Ok(())
    }

    pub(crate) fn do_cross_entropy_loss(&self, args: CrossEntropyLoss<'_, WgpuBuffer>) -> Result<()> {
        let t = args.check()?;
        for (first, n) in self.pieces(t) {
            self.call("cross_entropy_loss", kernels::CrossEntropyLoss { n: n as u32 })
                .wide(n % 4 == 0)
                .read_wide(args.sum_exp.rows(first, n)?)
                .read_wide(args.target.rows(first, n)?)
                .write_wide(args.loss.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }

    pub(crate) fn do_cross_entropy_backward(&self, args: CrossEntropyBackward<'_, WgpuBuffer>) -> Result<()> {
        let [t, v] = args.check()?;
        for (first, rows) in self.row_pieces(t, v) {
            let params = kernels::CrossEntropyBackward {
                rows: rows as u32,
                v: v as u32,
                first_column: args.first_column as u32,
                scale: args.scale,
            };
            self.call("cross_entropy_backward", params)
                .wide(v % 4 == 0)
                .read_wide(args.logits.rows(first, rows)?)
                .read(args.targets.rows(first, rows)?)
                .read(args.max.rows(first, rows)?)
                .read(args.sum_exp.rows(first, rows)?)
                .write_wide(args.dlogits.rows(first, rows)?)
                .run(Grid::Columns(v, rows))?;
        }
        Ok(())
    }
}
