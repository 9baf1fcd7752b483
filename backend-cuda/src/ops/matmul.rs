//! Matrix products and their epilogues: by cuBLASLt where the rank has it and it has an algorithm; else on tensor cores where the factors are bf16 or f16, and in fp32
//! arithmetic where not.

use backend::ops::{Gelu, Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{DType, Result, View};

use crate::backend::CudaBackend;
use crate::cublaslt::{Epilogue, Product};
use crate::kernels::{Variant, element};
use crate::launch::{at, extent, of};
use crate::memory::CudaBuffer;

/// Rows and columns of a block's tile: matmul.cu's TILE.
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

/// The struct of matmul_tensor.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct TensorParams {
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
    wide: u32,
    alpha: f32,
    beta: f32,
}

/// The kernel's name, its tile, threads, and bytes of shared memory; see matmul_tensor.cu. A product that does not give each multiprocessor a tile of 128 x 128
/// goes in smaller ones.
fn tensor_kernel(dims: MatmulDims, layout: u32, multiprocessors: u32) -> (&'static str, u64, u32, u32) {
    const STAGES: u32 = 3;
    const DEPTH: u32 = 32;
    let staged = |tile: u32, along: bool| if along { tile * (DEPTH + 8) } else { DEPTH * (tile + 8) };
    let shared = |tile: u32| 2 * STAGES * (staged(tile, layout != 2) + staged(tile, layout == 0));
    let tiles = (dims.m.div_ceil(128) * dims.n.div_ceil(128) * dims.batch) as u64;
    match tiles >= u64::from(multiprocessors) {
        true => ("matmul_128", 128, 256, shared(128)),
        false => ("matmul_64", 64, 128, shared(64)),
    }
}

impl CudaBackend {
    /// A product on tensor cores.
    fn tensor_product(
        &self,
        op: &'static str,
        args: &Matmul<'_, CudaBuffer>,
        dims: MatmulDims,
        bias: Option<View<'_, CudaBuffer>>,
        activated: Option<View<'_, CudaBuffer>>,
        layout: u32,
    ) -> Result<()> {
        let MatmulDims { batch, m, n, k } = dims;
        let (rows, columns, depth) = (extent(op, "m", m)?, extent(op, "n", n)?, extent(op, "k", k)?);
        // Rows of eight elements, from 16 bytes on.
        let whole = |x: View<'_, CudaBuffer>, row: usize| row.is_multiple_of(8) && at(x).is_multiple_of(16);
        let paired = |x: View<'_, CudaBuffer>| at(x).is_multiple_of(2 * x.dtype().size() as u64);
        let wide = [
            whole(args.a, if args.trans_a { m } else { k }),
            whole(args.b, if args.trans_b { k } else { n }),
            n.is_multiple_of(2) && paired(args.c) && activated.is_none_or(paired),
        ];
        let params = TensorParams {
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
            wide: wide.iter().zip(0..).map(|(&bit, at)| u32::from(bit) << at).sum(),
            alpha: args.alpha,
            beta: args.beta,
        };
        let (kernel, tile, threads, shared) = tensor_kernel(dims, layout, self.device.multiprocessors);
        let tiles = (m as u64).div_ceil(tile) * (n as u64).div_ceil(tile);
        let tiles = extent(op, "tiles", usize::try_from(tiles).unwrap_or(usize::MAX))?;
        let variant = Variant::matmul_tensor(args.a.dtype(), args.c.dtype(), layout);
        let grid = [tiles, 1, extent(op, "batch", batch)?];
        self.launch_shared(op, (variant, kernel), grid, (threads, shared), params)
    }

    /// The product by cuBLASLt; `false`, and nothing done, where that is not for it.
    fn by_cublaslt(
        &self,
        args: &Matmul<'_, CudaBuffer>,
        dims: MatmulDims,
        bias: Option<View<'_, CudaBuffer>>,
        activated: Option<View<'_, CudaBuffer>>,
    ) -> Result<bool> {
        let Some(cublaslt) = &self.cublaslt else { return Ok(false) };
        let MatmulDims { batch, m, n, k } = dims;
        let plain = Product {
            batch,
            m,
            n,
            k,
            trans_a: args.trans_a,
            trans_b: args.trans_b,
            factors: args.a.dtype(),
            result: args.c.dtype(),
            alpha: args.alpha,
            beta: args.beta,
            epilogue: if bias.is_some() { Epilogue::Bias } else { Epilogue::None },
            a: at(args.a),
            b: at(args.b),
            c: at(args.c),
            bias: bias.map_or(0, at),
            pre: 0,
        };
        let multiply = |product: &Product| match product.fits() {
            // SAFETY: the operation's check has matched the views to the extents.
            true => unsafe { cublaslt.multiply(product) },
            false => Ok(false),
        };
        let Some(y) = activated else { return multiply(&plain) };
        let fused = Product { epilogue: Epilogue::BiasGelu, c: at(y), pre: at(args.c), ..plain };
        if multiply(&fused)? {
            return Ok(true);
        }
        // The activation by itself.
        let made = multiply(&plain)?;
        if made {
            self.do_gelu(Gelu { x: args.c, y })?;
        }
        Ok(made)
    }

    /// A product and what follows it in the same pass; addresses of 0 are left out.
    fn product(
        &self,
        op: &'static str,
        args: &Matmul<'_, CudaBuffer>,
        dims: MatmulDims,
        bias: Option<View<'_, CudaBuffer>>,
        activated: Option<View<'_, CudaBuffer>>,
    ) -> Result<()> {
        if self.by_cublaslt(args, dims, bias, activated)? {
            return Ok(());
        }
        let layout = match (args.a.dtype(), args.trans_a, args.trans_b) {
            (DType::F32, ..) | (_, true, true) => None,
            (_, false, true) => Some(0),
            (_, false, false) => Some(1),
            (_, true, false) => Some(2),
        };
        if let Some(layout) = layout {
            return self.tensor_product(op, args, dims, bias, activated, layout);
        }
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
