#![allow(unsafe_code, reason = "the peer is called as it is")]
//! Our matrix product, of f32 and of bf16, beside `gemm`'s own of f32, in one run: squares, the products of a `laptop` step, and of a decoding step of GPT-2.
//!
//! `cargo bench -p backend-cpu --bench matmul`

mod common;

use std::hint::black_box;
use std::time::Duration;

use backend::ops::Matmul;
use backend::{Backend, DType};
use backend_cpu::CpuBackend;
use common::{H, Rig, T, V};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Name, `[m, n, k]`, and whether a and b are stored transposed.
type Case = (String, [usize; 3], [bool; 2]);

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    let squares = [512, 1024, 2048].map(|n| (n.to_string(), [n; 3], [false, false]));
    let (forward, input, weight) = ([false, true], [false, false], [true, false]);
    let laptop = [
        ("qkv", [T, 3 * H, H], forward),
        ("up", [T, 4 * H, H], forward),
        ("down", [T, H, 4 * H], forward),
        ("logits", [T, V, H], forward),
        ("up-input", [T, H, 4 * H], input),
        ("down-input", [T, 4 * H, H], input),
        ("logits-input", [T, H, V], input),
        ("up-weight", [4 * H, H, T], weight),
        ("down-weight", [H, 4 * H, T], weight),
        ("logits-weight", [V, H, T], weight),
        ("decode-1", [1, 3072, 768], forward),
        ("decode-8", [8, 3072, 768], forward),
        ("decode-16", [16, 3072, 768], forward),
        ("decode-32", [32, 3072, 768], forward),
        ("decode-48", [48, 3072, 768], forward),
        ("decode-logits", [1, 50304, 768], forward),
    ];
    let cases: Vec<Case> =
        squares.into_iter().chain(laptop.map(|(name, dims, trans)| (name.to_owned(), dims, trans))).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        let rig = Rig { cpu: CpuBackend::new(threads) };
        let mut group = criterion.benchmark_group(format!("matmul/{threads}"));
        for (name, [m, n, k], [trans_a, trans_b]) in &cases {
            let (m, n, k) = (*m, *n, *k);
            group.throughput(Throughput::Elements((2 * m * n * k) as u64));
            let a = rig.floats(&if *trans_a { [k, m] } else { [m, k] });
            let b = rig.floats(&if *trans_b { [n, k] } else { [k, n] });
            let c = rig.floats(&[m, n]);
            let narrow = [&a, &b, &c].map(|x| rig.cast(x, DType::Bf16));
            for (row, [a, b, c]) in [("ours", [&a, &b, &c]), ("ours-bf16", narrow.each_ref())] {
                group.bench_function(BenchmarkId::new(row, name), |bench| {
                    bench.iter(|| {
                        let (a, b, c) = (a.view(), b.view(), c.view());
                        let args =
                            Matmul { a, b, c, trans_a: *trans_a, trans_b: *trans_b, alpha: 1.0, beta: 0.0 };
                        rig.cpu.matmul(args)
                    });
                });
            }
            let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.5f32; k * n], vec![0.0f32; m * n]);
            let strides = |transposed: bool, rows: usize, columns: usize| match transposed {
                true => (rows as isize, 1),
                false => (1, columns as isize),
            };
            let ((a_cs, a_rs), (b_cs, b_rs)) = (strides(*trans_a, m, k), strides(*trans_b, k, n));
            let parallelism =
                if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
            group.bench_function(BenchmarkId::new("gemm", name), |bench| {
                bench.iter(|| {
                    let (a, b, c) = (black_box(a.as_ptr()), black_box(b.as_ptr()), c.as_mut_ptr());
                    // SAFETY: the vectors have these extents.
                    unsafe {
                        gemm::gemm(
                            m,
                            n,
                            k,
                            c,
                            1,
                            n as isize,
                            false,
                            a,
                            a_cs,
                            a_rs,
                            b,
                            b_cs,
                            b_rs,
                            0.0,
                            1.0,
                            false,
                            false,
                            false,
                            parallelism,
                        );
                    }
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
