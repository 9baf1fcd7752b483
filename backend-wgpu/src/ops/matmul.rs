use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{Result, View};

use crate::backend::{MatmulKernel, WgpuBackend};
use crate::kernels;
use crate::launch::Grid;
use crate::memory::WgpuBuffer;

/// Rows and columns of a workgroup of `matmul/registers.wgsl`.
const REGISTERS: usize = 64;
/// Rows and columns of a workgroup of `matmul/subgroup.wgsl`.
const SUBGROUP: [usize; 2] = [32, 32];
/// Rows and columns that make the larger tile of `matmul/tiled.wgsl` worth it.
const LARGE: usize = 1024;

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
        let (m4, n4, k4) = (m % 4 == 0, n % 4 == 0, k % 4 == 0);
        let sizes = (m as u32, n as u32, k as u32);
        // What both kernels take alike.
        macro_rules! run {
            ($call:expr, $block:expr) => {{
                let mut call = $call
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
                call.run(Grid::Exact([n.div_ceil($block), m.div_ceil($block), batch]))
            }};
        }
        match self.matmul_kernel {
            MatmulKernel::Registers => {
                let params = kernels::MatmulRegisters { m: sizes.0, n: sizes.1, k: sizes.2, alpha, beta };
                // Every contiguous axis in fours: columns of c, and what is contiguous of a and b.
                let wide = n4 && if trans_a { m4 } else { k4 } && if trans_b { k4 } else { n4 };
                let one = trans_a && !trans_b;
                run!(self.call(op, params).wide(wide).define("STEP_ONE", one), REGISTERS)
            }
            MatmulKernel::Subgroup => {
                let params = kernels::MatmulSubgroup { m: sizes.0, n: sizes.1, k: sizes.2, alpha, beta };
                let mut call = self.call(op, params).wide(k4);
                call = if trans_a { call.read(a) } else { call.read_wide(a) };
                call = if trans_b { call.read_wide(b) } else { call.read(b) };
                call = call.write(c);
                if let Some(bias) = epilogue.bias {
                    call = call.read(bias);
                }
                if let Some(y) = epilogue.gelu {
                    call = call.write(y);
                }
                call.define("TRANS_A", trans_a)
                    .define("TRANS_B", trans_b)
                    .define("BETA", beta != 0.0)
                    .define("BIAS", epilogue.bias.is_some())
                    .define("GELU", epilogue.gelu.is_some())
                    .run(Grid::Exact([n.div_ceil(SUBGROUP[1]), m.div_ceil(SUBGROUP[0]), batch]))
            }
            MatmulKernel::Tiled => {
                let params = kernels::MatmulTiled { m: sizes.0, n: sizes.1, k: sizes.2, alpha, beta };
                let tile = if m.min(n) >= LARGE { 8 } else { 4 };
                run!(self.call(op, params).define("TILE", tile as u32), 16 * tile)
            }
        }
    }
}
