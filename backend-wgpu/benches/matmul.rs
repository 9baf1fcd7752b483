//! Matrix products in FLOP/s (criterion's elements a second): squares, and the linear layers of preset `laptop` (2048 tokens, hidden 128).
//!
//!     cargo bench -p backend-wgpu --bench matmul

use std::time::Duration;

use backend::ops::Matmul;
use backend::{Backend, Class, DType, Shape};
use backend_wgpu::{Choice, WgpuBackend};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Name; m, n, k; whether a and b are transposed.
const CASES: [(&str, [usize; 3], bool, bool); 12] = [
    ("512 nn", [512, 512, 512], false, false),
    ("1024 nn", [1024, 1024, 1024], false, false),
    ("1024 nt", [1024, 1024, 1024], false, true),
    ("1024 tn", [1024, 1024, 1024], true, false),
    ("laptop qkv forward", [2048, 384, 128], false, true),
    ("laptop qkv dx", [2048, 128, 384], false, false),
    ("laptop qkv dw", [384, 128, 2048], true, false),
    ("laptop ffn forward", [2048, 512, 128], false, true),
    ("laptop ffn dw", [512, 128, 2048], true, false),
    ("laptop logits forward", [2048, 4096, 128], false, true),
    ("laptop logits dx", [2048, 128, 4096], false, false),
    ("laptop logits dw", [4096, 128, 2048], true, false),
];

fn products(c: &mut Criterion) {
    let backend = match WgpuBackend::new(&Choice::Any { name: None }, Duration::from_secs(120)) {
        Ok(backend) => backend,
        Err(error) => return println!("skipped: {error}"),
    };
    println!("{}", backend.adapter());
    let mut group = c.benchmark_group("matmul");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for (name, [m, n, k], trans_a, trans_b) in CASES {
        let tensor = |shape: [usize; 2]| {
            let tensor = backend.alloc(Class::Activations, DType::F32, Shape::from(shape)).expect("memory");
            backend.fill(tensor.view(), 0.5).expect("a fill");
            tensor
        };
        let a = tensor(if trans_a { [k, m] } else { [m, k] });
        let b = tensor(if trans_b { [n, k] } else { [k, n] });
        let y = tensor([m, n]);
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let args =
                    Matmul { a: a.view(), b: b.view(), c: y.view(), trans_a, trans_b, alpha: 1.0, beta: 0.0 };
                backend.matmul(args).expect("a product");
                backend.sync().expect("the device");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
