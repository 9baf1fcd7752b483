//! The products of one token of GPT-2 (124M), layer by layer, beside reading the same weights once: how near decoding comes to the memory's rate.
//!
//! `cargo bench -p backend-cpu --bench decoding`

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use backend::ops::Matmul;
use backend::{Backend, DType, Tensor};
use backend_cpu::{CpuBackend, CpuBuffer};
use common::Rig;

const LAYERS: usize = 12;
const HIDDEN: usize = 768;
const VOCABULARY: usize = 50_304;
const ROUNDS: usize = 15;

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("threads  rows  weights  products GB/s  reading GB/s  median of their ratio");
    for threads in [1, cores] {
        let rig = Rig { cpu: CpuBackend::new(threads) };
        let layer = [[3 * HIDDEN, HIDDEN], [HIDDEN, HIDDEN], [4 * HIDDEN, HIDDEN], [HIDDEN, 4 * HIDDEN]];
        let extents = layer.iter().cycle().take(4 * LAYERS).chain([&[VOCABULARY, HIDDEN]]);
        let floats: Vec<_> = extents.map(|extents| (rig.floats(extents), *extents)).collect();
        let plain: Vec<f32> = floats.iter().flat_map(|(_, [n, k])| vec![0.5f32; n * k]).collect();
        for dtype in [DType::F32, DType::Bf16] {
            let weights: Vec<_> = floats.iter().map(|(w, extents)| (rig.cast(w, dtype), extents)).collect();
            let bytes = plain.len() * dtype.size();
            for rows in [1, 4, 16] {
                let products: Vec<_> = weights
                    .iter()
                    .map(|(b, [n, k])| {
                        let [a, c] = [k, n].map(|extent| rig.cast(&rig.floats(&[rows, *extent]), dtype));
                        (a, b, c)
                    })
                    .collect();
                let mut rates: Vec<[f64; 2]> = (0..ROUNDS)
                    .map(|_| [token(&rig, &products), read(&plain[..bytes / 4], threads)])
                    .map(|times| times.map(|time| bytes as f64 / time.as_secs_f64() / 1e9))
                    .collect();
                rates.sort_by(|x, y| (x[0] / x[1]).total_cmp(&(y[0] / y[1])));
                let [products, reading] = rates[ROUNDS / 2];
                println!(
                    "{threads:7}  {rows:4}  {:7}  {products:13.1}  {reading:12.1}  {:.2}",
                    dtype.name(),
                    products / reading
                );
            }
        }
    }
}

/// Every product once.
fn token(rig: &Rig, products: &[(Tensor<CpuBuffer>, &Tensor<CpuBuffer>, Tensor<CpuBuffer>)]) -> Duration {
    let begin = Instant::now();
    for (a, b, c) in products {
        let (a, b, c) = (a.view(), b.view(), c.view());
        let args = Matmul { a, b, c, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 };
        rig.cpu.matmul(args).expect("a product");
    }
    begin.elapsed()
}

/// Sums of each thread's share.
fn read(x: &[f32], threads: usize) -> Duration {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for share in x.chunks(x.len().div_ceil(threads)) {
            scope.spawn(move || {
                let mut sums = [0.0; 32];
                for x in share.chunks_exact(32) {
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum += x;
                    }
                }
                black_box(sums);
            });
        }
    });
    begin.elapsed()
}
