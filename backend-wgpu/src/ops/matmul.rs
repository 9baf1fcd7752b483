use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{DType, Result, View};

use crate::backend::WgpuBackend;
use crate::kernels;
use crate::launch::Grid;
use crate::matmul::MatmulKernel;
use crate::memory::WgpuBuffer;

/// What follows a product: a row to add, and where its activation goes.
#[derive(Clone, Copy, Default)]
struct Epilogue<'a> {
    bias: Option<View<'a, WgpuBuffer>>,
    gelu: Option<View<'a, WgpuBuffer>>,
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

    fn launch(
        &self,
        op: &'static str,
        args: Matmul<'_, WgpuBuffer>,
        dims: MatmulDims,
        epilogue: Epilogue<'_>,
    ) -> Result<()> {
        let Matmul { a, b, c, trans_a, trans_b, alpha, beta } = args;
        let MatmulDims { batch, m, n, k } = dims;
        if batch == 0 || m == 0 || n == 0 {
            return Ok(());
        }
        let kernel = self.matmul_kernel.unwrap_or_else(|| MatmulKernel::fixed(&self.device.info, m, n));
        let [rows, columns] = kernel.block(&self.device.info);
        let (m4, n4, k4) = (m % 4 == 0, n % 4 == 0, k % 4 == 0);
        // What all kernels take alike.
        macro_rules! run {
            ($params:ident, |$call:ident| $own:expr) => {{
                let (m, n, k) = (m as u32, n as u32, k as u32);
                let $call = self.call(op, kernels::$params { m, n, k, first: 0, alpha, beta });
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
        let grid = Grid::Exact([n.div_ceil(columns), m.div_ceil(rows), batch]);
        let lanes = self.device.info.subgroup_lanes.unwrap_or(32);
        match kernel {
            MatmulKernel::Registers => run!(MatmulRegisters, |call| call.define("K4", k4)).run(grid),
            MatmulKernel::Subgroup => {
                let spread = lanes.min(8);
                run!(MatmulSubgroup, |call| call
                    .define("K4", k4)
                    .define("LANES", lanes)
                    .define("READS", 32 / lanes)
                    .define("SPREAD", spread)
                    .define("QUADS", 8 / spread))
                .run(grid)
            }
            MatmulKernel::Tiled64 => run!(MatmulTiled, |call| call.define("TILE", 4u32)).run(grid),
            MatmulKernel::Tiled128 => run!(MatmulTiled, |call| call.define("TILE", 8u32)).run(grid),
            MatmulKernel::Cooperative => {
                let half = a.dtype() == DType::F16 && self.device.info.cooperative_f16;
                run!(MatmulCooperative, |call| call.define("HALF", half).define("LANES", lanes)).run(grid)
            }
        }
    }
}
