use backend::Result;
use backend::ops::Dropout;
use backend::philox::drop_below;

use super::halves;
use crate::backend::{WgpuBackend, flat};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

impl WgpuBackend {
    pub(crate) fn do_dropout(&self, args: Dropout<'_, WgpuBuffer>) -> Result<()> {
        args.check()?;
        let (x, y, mask) = (flat(args.x)?, flat(args.y)?, args.mask);
        let ([seed_low, seed_high], [stream_low, stream_high]) =
            (halves(mask.stream.seed), halves(mask.stream.stream));
        for (first, n) in self.pieces(x.len()) {
            let [first_low, first_high] = halves(mask.first + first as u64);
            let params = kernels::Dropout {
                n: n as u32,
                seed_low,
                seed_high,
                stream_low,
                stream_high,
                first_low,
                first_high,
                threshold: drop_below(mask.p),
                keep_scale: mask.scale(),
            };
            self.call("dropout", params)
                .wide(n % 4 == 0)
                .read_wide(x.rows(first, n)?)
                .write_wide(y.rows(first, n)?)
                .run(Grid::Flat(n))?;
        }
        Ok(())
    }
}
