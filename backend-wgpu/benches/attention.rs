//! Attention beside the matrix product, in one run: FLOP/s by the time that the process's threads have computed (two seconds of it count as one, so that a
//! software adapter of two cores reads as what it does with both, whatever else runs beside it), and their ratio.
//!
//!     cargo bench -p backend-wgpu --bench attention [-- <b> <heads> <s> <d>]
//!
//! FLOPs: 2 m n k a product; 2 b a s^2 d a causal forward (half of 2 x 2 b a s^2 d), 2.5 times that its backward.

use std::time::{Duration, Instant};

use backend::ops::{Attention, AttentionBackward, AttentionDropout, Matmul, Scratch};
use backend::philox::Stream;
use backend::{Backend, Class, DType, Result, Shape, Tensor};
use backend_wgpu::{Choice, WgpuBackend, WgpuBuffer};

/// Runs of each; the best one counts.
const ROUNDS: usize = 3;

/// Half the processor time of this process where the system tells it, else the time that passed.
fn seconds(start: Instant) -> f64 {
    // Fields 14 and 15: user and system time in hundredths of a second; the second field, in parentheses, may hold blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    match fields.get(10..12) {
        // The state, a letter, is not among the numbers.
        Some([user, system]) => (user + system) / 200.0,
        _ => start.elapsed().as_secs_f64(),
    }
}

/// GFLOP/s of the best round, after one that compiles.
fn rate(backend: &WgpuBackend, flops: f64, work: &dyn Fn() -> Result<()>) -> Result<f64> {
    let origin = Instant::now();
    work()?;
    backend.sync()?;
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let (before, mut runs) = (seconds(origin), 0.0);
        let took = loop {
            work()?;
            backend.sync()?;
            runs += 1.0;
            let took = seconds(origin) - before;
            // The clock ticks in hundredths.
            if took >= 0.5 {
                break took;
            }
        };
        best = best.max(runs * flops / took / 1e9);
    }
    Ok(best)
}

fn tensor(backend: &WgpuBackend, shape: &[usize], seed: u64) -> Result<Tensor<WgpuBuffer>> {
    let tensor = backend.alloc(Class::Activations, DType::F32, Shape::new(shape))?;
    let stream = Stream { seed, stream: 1 };
    let data: Vec<f32> = (0..tensor.len() as u64).map(|i| stream.uniform(i) - 0.5).collect();
    backend.write(tensor.view(), bytemuck::cast_slice(&data))?;
    Ok(tensor)
}

fn main() -> Result<()> {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let [b, a, s, d] = numbers.try_into().unwrap_or([4, 8, 1024, 64]);
    let backend = match WgpuBackend::new(&Choice::Any { name: None }, Duration::from_secs(120)) {
        Ok(backend) => backend,
        Err(error) => {
            println!("skipped: {error}");
            return Ok(());
        }
    };
    let backend = &backend;
    println!("{}", backend.adapter());
    const N: usize = 1024;
    let (x, w, y) =
        (tensor(backend, &[N, N], 1)?, tensor(backend, &[N, N], 2)?, tensor(backend, &[N, N], 3)?);
    let matmul = rate(backend, 2.0 * (N * N * N) as f64, &|| {
        let (a, b, c) = (x.view(), w.view(), y.view());
        backend.matmul(Matmul { a, b, c, trans_a: false, trans_b: false, alpha: 1.0, beta: 0.0 })
    })?;
    println!("matmul {N}^3: {matmul:.2} GFLOP/s");

    let (qkv, dqkv) = (tensor(backend, &[b, s, a, 3, d], 4)?, tensor(backend, &[b, s, a, 3, d], 5)?);
    let (out, dout) = (tensor(backend, &[b, s, a, d], 6)?, tensor(backend, &[b, s, a, d], 7)?);
    let lse = tensor(backend, &[b, a, s], 8)?;
    let scratch = [Scratch::Attention { b, s, a, d }, Scratch::AttentionBackward { b, s, a, d }];
    let most = scratch.map(|scratch| backend.workspace(scratch)).into_iter().max().unwrap_or_default();
    let space = tensor(backend, &[most], 9)?;
    let scale = 1.0 / (d as f32).sqrt();
    let stream = Stream { seed: 1, stream: 2 };
    let dropped = AttentionDropout { p: 0.1, stream, first_sample: 0, first_head: 0, heads: a };
    let flops = 2.0 * (b * a * s * s * d) as f64;
    for (name, dropout) in [("", None), (", dropout", Some(dropped))] {
        let forward = rate(backend, flops, &|| {
            backend.attention(Attention {
                qkv: qkv.view(),
                out: out.view(),
                lse: lse.view(),
                scale,
                dropout,
                workspace: space.view(),
            })
        })?;
        let backward = rate(backend, 2.5 * flops, &|| {
            backend.attention_backward(AttentionBackward {
                qkv: qkv.view(),
                out: out.view(),
                lse: lse.view(),
                dout: dout.view(),
                dqkv: dqkv.view(),
                scale,
                dropout,
                workspace: space.view(),
            })
        })?;
        let both = 3.5 / (1.0 / forward + 2.5 / backward);
        println!(
            "attention [b {b}, heads {a}, s {s}, d {d}]{name}: forward {forward:.2}, backward {backward:.2}, both {both:.2} GFLOP/s, {:.2} of the matmul's",
            both / matmul
        );
    }
    Ok(())
}
