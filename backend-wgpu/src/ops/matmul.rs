use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{DType, Result, View};

use crate::backend::WgpuBackend;
use crate::kernels;
use crate::launch::Grid;
use crate::matmul::{Class, Contest, MatmulKernel, qualifies};
use crate::memory::WgpuBuffer;
use crate::queue::{Command, Launch};

/// What follows a product: a row to add, and where its activation goes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    bias: Option<View<'a, WgpuBuffer>>,
    gelu: Option<View<'a, WgpuBuffer>>,
}

/// Work of one dispatch at the most, in FLOPs (2 m n k a product): where a driver's watchdog gives a dispatch two seconds, a device of 35 GFLOP/s is in time.
pub(crate) const MOST_FLOPS: u64 = 1 << 36;

/// A dispatch's share of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    /// First matrix of the batch, first block of rows and of columns.
    first: [u32; 3],
    /// Blocks of columns, blocks of rows, matrices.
    groups: [usize; 3],
}

/// Cuts a product by blocks, so that no dispatch has more than `most` FLOPs, nor more than `groups` workgroups in a dimension; a single block is never cut.
fn parts(dims: MatmulDims, block: [usize; 2], most: u64, groups: usize) -> Vec<Part> {
    let MatmulDims { batch, m, n, k } = dims;
    let [rows, columns] = [m.div_ceil(block[0]), n.div_ceil(block[1])];
    let one = 2 * (block[0] * block[1] * k.max(1)) as u64;
    // Whole rows of blocks before columns, whole matrices before rows.
    let fit = |work: u64, all: usize| {
        usize::try_from(most / work.max(1)).unwrap_or(all).min(groups).clamp(1, all.max(1))
    };
    let some_columns = fit(one, columns);
    let some_rows = if some_columns < columns { 1 } else { fit(one * columns as u64, rows) };
    let some_matrices = if some_rows < rows { 1 } else { fit(one * (columns * rows) as u64, batch) };
    let mut all = Vec::new();
    for matrix in (0..batch).step_by(some_matrices) {
        for row in (0..rows).step_by(some_rows) {
            for column in (0..columns).step_by(some_columns) {
                let groups = [
                    some_columns.min(columns - column),
                    some_rows.min(rows - row),
                    some_matrices.min(batch - matrix),
                ];
                all.push(Part { first: [matrix as u32, row as u32, column as u32], groups });
            }
        }
    }
    all
}

impl WgpuBackend {
    pub(crate) fn do_matmul(&self, args: Matmul<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        self.product("matmul", args, dims, Epilogue::default())
    }

    pub(crate) fn do_matmul_bias(&self, args: MatmulBias<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        self.product("matmul_bias", args.product(), dims, Epilogue { bias: Some(args.bias), gelu: None })
    }

    pub(crate) fn do_matmul_bias_gelu(&self, args: MatmulBiasGelu<'_, WgpuBuffer>) -> Result<()> {
        let dims = args.check()?;
        let epilogue = Epilogue { bias: Some(args.bias), gelu: Some(args.y) };
        self.product("matmul_bias_gelu", args.product(), dims, epilogue)
    }

    /// Cuts the product so that no window is longer than a binding: the batch into matrices, and rows of `c` where `a` has them contiguous.
    fn product(
        &self,
        op: &'static str,
        args: Matmul<'_, WgpuBuffer>,
        dims: MatmulDims,
        epilogue: Epilogue<'_>,
    ) -> Result<()> {
        let MatmulDims { batch, m, n, k } = dims;
        let widest = (m * n).max(m * k).max(k * n);
        if batch > 1 && batch * widest > self.window() {
            for (first, count) in self.row_pieces(batch, widest) {
                let (a, b) = (args.a.rows(first, count)?, args.b.rows(first, count)?);
                let c = args.c.rows(first, count)?;
                let dims = MatmulDims { batch: count, ..dims };
                self.launch(op, Matmul { a, b, c, ..args }, dims, epilogue)?;
            }
            return Ok(());
        }
        if batch == 1 && !args.trans_a && m * n.max(k) > self.window() {
            let (a, c) = (args.a.reshape([m, k])?, args.c.reshape([m, n])?);
            for (first, rows) in self.row_pieces(m, n.max(k)) {
                let (a, c) = (a.rows(first, rows)?, c.rows(first, rows)?);
                let gelu = epilogue.gelu.map(|y| y.rows(first, rows)).transpose()?;
                let dims = MatmulDims { m: rows, ..dims };
                self.launch(op, Matmul { a, c, ..args }, dims, Epilogue { gelu, ..epilogue })?;
            }
            return Ok(());
        }
        self.launch(op, args, dims, epilogue)
    }

    /// Makes a product by whichever kernel its class takes, or finds out which that is.
    fn launch(
        &self,
        op: &'static str,
        args: Matmul<'_, WgpuBuffer>,
        dims: MatmulDims,
        epilogue: Epilogue<'_>,
    ) -> Result<()> {
        if dims.batch == 0 || dims.m == 0 || dims.n == 0 {
            return Ok(());
        }
        let (info, choices) = (&self.device.info, &self.device.choices);
        let rule = MatmulKernel::fixed(info, dims.m, dims.n);
        let class = Class::new([args.trans_a, args.trans_b], [args.a.dtype(), args.c.dtype()], dims);
        let decided = self.matmul_kernel.or_else(|| choices.decided(class, rule));
        // A product that reads what it writes cannot be made twice.
        let undecided = decided.is_none() && args.beta == 0.0;
        let first = decided.unwrap_or(rule);
        let launches = self.launches(op, first, &args, dims, epilogue)?;
        if !undecided {
            self.send(launches);
            return Ok(());
        }
        let mut candidates = vec![(rule, launches)];
        for kernel in MatmulKernel::ALL {
            let rival = kernel != rule && choices.admits(kernel, info);
            if rival && choices.passed(class, kernel, || qualifies(self, class, kernel, rule)) {
                candidates.push((kernel, self.launches(op, kernel, &args, dims, epilogue)?));
            }
        }
        if candidates.len() == 1 {
            choices.settle(class, rule);
        }
        self.device.send(Command::Contest(Box::new(Contest { class, candidates })));
        Ok(())
    }

    /// Hands launches over in order.
    pub(crate) fn send(&self, launches: Vec<Launch>) {
        launches.into_iter().for_each(|launch| self.device.send(Command::Launch(Box::new(launch))));
    }

    /// What makes the product by a kernel: dispatches of at most [`most_flops`](WgpuBackend::most_flops) each.
    pub(crate) fn launches(
        &self,
        op: &'static str,
        kernel: MatmulKernel,
        args: &Matmul<'_, WgpuBuffer>,
        dims: MatmulDims,
        epilogue: Epilogue<'_>,
    ) -> Result<Vec<Launch>> {
        let block = kernel.block(&self.device.info);
        let mut launches = Vec::new();
        for part in parts(dims, block, self.most_flops, self.device.max_groups as usize) {
            launches.extend(self.part(op, kernel, args, dims, part, epilogue)?);
        }
        Ok(launches)
    }

    /// A dispatch of the product.
    fn part(
        &self,
        op: &'static str,
        kernel: MatmulKernel,
        args: &Matmul<'_, WgpuBuffer>,
        dims: MatmulDims,
        part: Part,
        epilogue: Epilogue<'_>,
    ) -> Result<Option<Launch>> {
        let &Matmul { a, b, c, trans_a, trans_b, alpha, beta } = args;
        let MatmulDims { m, n, k, .. } = dims;
        let (m4, n4, k4) = (m % 4 == 0, n % 4 == 0, k % 4 == 0);
        // What all kernels take alike.
        macro_rules! run {
            ($params:ident, |$call:ident| $own:expr) => {{
                let (m, n, k) = (m as u32, n as u32, k as u32);
                let [first_matrix, first_row, first_column] = part.first;
                let params = kernels::$params { m, n, k, first_matrix, first_row, first_column, alpha, beta };
                let $call = self.call(op, params);
                let mut call = $own
                    .wide(n4 && k4 && (m4 || !trans_a))
                    .native_f16()
                    .define("TRANS_A", trans_a)
                    .define("TRANS_B", trans_b)
                    .define("BETA", beta != 0.0)
                    .define("BIAS", epilogue.bias.is_some())
                    .define("GELU", epilogue.gelu.is_some())
                    .read_wide(a)
                    .read_wide(b)
                    .write_wide(c);
                if let Some(bias) = epilogue.bias {
                    call = call.read_wide(bias);
                }
                if let Some(y) = epilogue.gelu {
                    call = call.write_wide(y);
                }
                call
            }};
        }
        let grid = Grid::Exact(part.groups);
        let lanes = self.device.info.subgroup_lanes.unwrap_or(32);
        match kernel {
            MatmulKernel::Registers => run!(MatmulRegisters, |call| call.define("K4", k4)).prepare(grid),
            MatmulKernel::Subgroup => {
                let spread = lanes.min(8);
                run!(MatmulSubgroup, |call| call
                    .define("K4", k4)
                    .define("LANES", lanes)
                    .define("READS", 32 / lanes)
                    .define("SPREAD", spread)
                    .define("QUADS", 8 / spread))
                .prepare(grid)
            }
            MatmulKernel::Tiled64 => run!(MatmulTiled, |call| call.define("TILE", 4u32)).prepare(grid),
            MatmulKernel::Tiled128 => run!(MatmulTiled, |call| call.define("TILE", 8u32)).prepare(grid),
            MatmulKernel::Cooperative => {
                let half = a.dtype() == DType::F16 && self.device.info.cooperative_f16;
                run!(MatmulCooperative, |call| call.define("HALF", half).define("LANES", lanes)).prepare(grid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_dispatch_is_longer_than_its_bound() {
        for (dims, most, least_parts) in [
            ([1, 64, 64, 64], MOST_FLOPS, 1),
            // More workgroups than a dimension has.
            ([205, 64, 64, 8], MOST_FLOPS, 3),
            ([1, 6401, 1, 1], MOST_FLOPS, 2),
            ([1, 16_384, 16_384, 16_384], MOST_FLOPS, 128),
            ([1, 4096, 51_200, 20_480], MOST_FLOPS, 125),
            ([96, 2048, 2048, 128], MOST_FLOPS, 2),
            ([5, 200, 300, 70], 1 << 20, 40),
            // A block alone is more than that.
            ([1, 130, 130, 1000], 1000, 9),
            ([2, 0, 10, 10], 1, 0),
        ] {
            let [batch, m, n, k] = dims;
            let dims = MatmulDims { batch, m, n, k };
            let block = [64, 64];
            let parts = parts(dims, block, most, 100);
            assert!(parts.len() >= least_parts, "{dims:?}: {} parts", parts.len());
            let mut blocks = std::collections::BTreeSet::new();
            for part in &parts {
                let [x, y, z] = part.groups;
                let work = 2 * (x * y * z * 64 * 64 * k) as u64;
                assert!([x, y, z].iter().all(|&n| n <= 100), "{dims:?}: {part:?}");
                assert!(work <= most || x * y * z == 1, "{dims:?}: {work} FLOPs in {part:?}");
                let [matrix, row, column] = part.first.map(|first| first as usize);
                for at in 0..x * y * z {
                    let seen = (matrix + at / (x * y), row + at / x % y, column + at % x);
                    assert!(blocks.insert(seen), "{dims:?}: {seen:?} is made twice");
                }
            }
            assert_eq!(blocks.len(), batch * m.div_ceil(64) * n.div_ceil(64), "{dims:?}");
        }
    }
}
