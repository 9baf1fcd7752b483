use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{Result, View};

use crate::backend::CudaBackend;
use crate::kernels::element;
use crate::launch::{at, extent, of};
use crate::memory::CudaBuffer;

/// Rows and columns of a block's tile: the kernel's TILE.
const TILE: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    a: u64,
    b: u64,
    c: u64,
    bias: u64,
    activated: u64,
    a_batch: u64,
    b_batch: u64,
    c_batch: u64,
    m: u32,
    n: u32,
    k: u32,
    a_strides: [u32; 2],
    b_strides: [u32; 2],
    alpha: f32,
    beta: f32,
}

impl CudaBackend {
    /// A product and what follows it in the same pass; addresses of 0 are left out.
    fn product(
        &self,
        op: &'static str,
        args: &Matmul<'_, CudaBuffer>,
        dims: MatmulDims,
        bias: Option<View<'_, CudaBuffer>>,
        activated: Option<View<'_, CudaBuffer>>,
    ) -> Result<()> {
        let MatmulDims { batch, m, n, k } = dims;
        let (rows, columns, depth) = (extent(op, "m", m)?, extent(op, "n", n)?, extent(op, "k", k)?);
        let params = Params {
            a: at(args.a),
            b: at(args.b),
            c: at(args.c),
            bias: bias.map_or(0, at),
            activated: activated.map_or(0, at),
            a_batch: (m * k) as u64,
            b_batch: (k * n) as u64,
            c_batch: (m * n) as u64,
            m: rows,
            n: columns,
            k: depth,
            a_strides: if args.trans_a { [1, rows] } else { [depth, 1] },
            b_strides: if args.trans_b { [1, depth] } else { [columns, 1] },
            alpha: args.alpha,
            beta: args.beta,
        };
        let variant = of("matmul.cu", args.a.dtype()).and("RESULT", element(args.c.dtype()));
        let grid = [columns.div_ceil(TILE), rows.div_ceil(TILE), extent(op, "batch", batch)?];
        self.launch(op, (variant, "matmul"), grid, 256, params)
    }

    pub(crate) fn do_matmul(&self, args: Matmul<'_, CudaBuffer>) -> Result<()> {
        let dims = args.check()?;
        self.product("matmul", &args, dims, None, None)
    }

    pub(crate) fn do_matmul_bias(&self, args: MatmulBias<'_, CudaBuffer>) -> Result<()> {
        let dims = args.check()?;
        self.product("matmul_bias", &args.product(), dims, Some(args.bias), None)
    }

    pub(crate) fn do_matmul_bias_gelu(&self, args: MatmulBiasGelu<'_, CudaBuffer>) -> Result<()> {
        let dims = args.check()?;
        self.product("matmul_bias_gelu", &args.product(), dims, Some(args.bias), Some(args.y))
    }
}
