//! What a kernel must show on this very adapter before a contest admits it, by the variants that the class takes:
//!
//! * factors whose products and sums f32 holds exactly: the exact product, whatever the order of the sums;
//! * any other factors: the bits of the rule's kernel, if it says that it sums in order.
//!
//! The extents have an edge in every block. A kernel that does not compile has not passed, and nothing worse.

use std::sync::Arc;

use backend::ops::{Cast, Matmul, MatmulDims};
use backend::philox::Stream;
use backend::{Backend, Class as MemoryClass, DType, Result, Shape, Tensor};

use super::{Class, MatmulKernel};
use crate::backend::WgpuBackend;
use crate::memory::{Pool, WgpuBuffer};
use crate::ops::matmul::Epilogue;

/// Whether `kernel` makes on the rank's device what `rule` makes, and what is right.
pub(crate) fn qualifies(rank: &WgpuBackend, class: Class, kernel: MatmulKernel, rule: MatmulKernel) -> bool {
    // Memory of its own, so that no rank's is counted.
    let backend = WgpuBackend {
        pool: Pool::new(Arc::clone(&rank.device)),
        matmul_kernel: Some(kernel),
        ..rank.clone()
    };
    let exact = |x: f32| (16.0 * x).floor() / 8.0;
    let any = |x: f32| x;
    let passed = || -> Result<bool> {
        let Some(sums) = product(&backend, class, kernel, &exact)? else { return Ok(false) };
        if sums != product(&backend, class, rule, &exact)?.unwrap_or_default() {
            return Ok(false);
        }
        if class.dtypes[1] == DType::F32 && sums != expected(class, &exact) {
            return Ok(false);
        }
        Ok(!kernel.in_order()
            || product(&backend, class, kernel, &any)? == product(&backend, class, rule, &any)?)
    };
    passed().unwrap_or(false)
}

/// Extents past the edges of all blocks.
fn dims(class: Class) -> MatmulDims {
    let batch = if class.batched { 2 } else { 1 };
    match class.fours {
        true => MatmulDims { batch, m: 132, n: 140, k: 36 },
        false => MatmulDims { batch, m: 131, n: 139, k: 35 },
    }
}

fn numbers(n: usize, seed: u64, round: &dyn Fn(f32) -> f32) -> Vec<f32> {
    let stream = Stream { seed, stream: 1 << 62 };
    (0..n as u64).map(|i| round(2.0 * stream.uniform(i) - 1.0)).collect()
}

/// The bits of the product by a kernel, as they lie in memory; `None` where the kernel does not compile.
fn product(
    backend: &WgpuBackend,
    class: Class,
    kernel: MatmulKernel,
    round: &dyn Fn(f32) -> f32,
) -> Result<Option<Vec<u8>>> {
    let dims = dims(class);
    let MatmulDims { batch, m, n, k } = dims;
    let factor = |seed, shape: Shape| -> Result<Tensor<WgpuBuffer>> {
        let exact = backend.alloc(MemoryClass::Workspace, DType::F32, shape)?;
        backend.write(exact.view(), bytemuck::cast_slice(&numbers(shape.len(), seed, round)))?;
        let tensor = backend.alloc(MemoryClass::Workspace, class.dtypes[0], shape)?;
        backend.cast(Cast { src: exact.view(), dst: tensor.view() })?;
        Ok(tensor)
    };
    let shape = |trans, rows, columns| match trans {
        true => Shape::new(&[batch, columns, rows]),
        false => Shape::new(&[batch, rows, columns]),
    };
    let [trans_a, trans_b] = class.trans;
    let (a, b) = (factor(1, shape(trans_a, m, k))?, factor(2, shape(trans_b, k, n))?);
    let c = backend.alloc(MemoryClass::Workspace, class.dtypes[1], Shape::new(&[batch, m, n]))?;
    let args = Matmul { a: a.view(), b: b.view(), c: c.view(), trans_a, trans_b, alpha: 1.0, beta: 0.0 };
    let launches = backend.launches("matmul", kernel, &args, dims, Epilogue::default())?;
    if launches.iter().any(|launch| launch.pipeline.wait().is_err()) {
        return Ok(None);
    }
    backend.send(launches);
    let mut data = vec![0; c.view().bytes()];
    backend.read(c.view(), &mut data)?;
    Ok(Some(data))
}

/// The exact product of exact factors, as f32 lies in memory.
fn expected(class: Class, round: &dyn Fn(f32) -> f32) -> Vec<u8> {
    let MatmulDims { batch, m, n, k } = dims(class);
    let [trans_a, trans_b] = class.trans;
    let (a, b) = (numbers(batch * m * k, 1, round), numbers(batch * k * n, 2, round));
    let mut c = Vec::with_capacity(batch * m * n);
    for z in 0..batch {
        for row in 0..m {
            for column in 0..n {
                let x = |j| a[z * m * k + if trans_a { j * m + row } else { row * k + j }];
                let y = |j| b[z * k * n + if trans_b { column * k + j } else { j * n + column }];
                c.push((0..k).map(|j| x(j) * y(j)).sum::<f32>());
            }
        }
    }
    bytemuck::cast_slice(&c).to_vec()
}
