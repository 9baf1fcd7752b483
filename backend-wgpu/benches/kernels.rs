//! The other operations at the sizes of preset `laptop`: 8 sequences of 256 tokens, hidden 128, 4 heads, vocabulary 4,096.
//!
//!     cargo bench -p backend-wgpu --bench kernels

use std::time::Duration;

use backend::ops::{
    AdamW, Attention, AttentionBackward, AttentionDropout, BiasBackward, BiasGelu, BlockSquares,
    CrossEntropyBackward, CrossEntropyMax, CrossEntropySums, Embedding, EmbeddingBackward, LayerNorm,
    LayerNormBackward, Scratch,
};
use backend::philox::Stream;
use backend::{Backend, Class, DType, Result, Shape, Tensor};
use backend_wgpu::{Choice, WgpuBackend, WgpuBuffer};
use criterion::{Criterion, criterion_group, criterion_main};

const B: usize = 8;
const S: usize = 256;
const H: usize = 128;
const A: usize = 4;
const V: usize = 4096;
const T: usize = B * S;
const PARAMETERS: usize = 1_340_000;

fn kernels(c: &mut Criterion) {
    let backend = match WgpuBackend::new(&Choice::Any { name: None }, Duration::from_secs(120)) {
        Ok(backend) => backend,
        Err(error) => return println!("skipped: {error}"),
    };
    println!("{}", backend.adapter());
    let mut group = c.benchmark_group("laptop");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(500));
    let tensor = |shape: &[usize]| -> Tensor<WgpuBuffer> {
        let tensor = backend.alloc(Class::Activations, DType::F32, Shape::new(shape)).expect("memory");
        let stream = Stream { seed: 1, stream: 1 };
        let data: Vec<f32> = (0..tensor.len() as u64).map(|i| stream.uniform(i) - 0.5).collect();
        backend.write(tensor.view(), bytemuck::cast_slice(&data)).expect("a write");
        tensor
    };
    let mut bench = |name: &str, work: &dyn Fn() -> Result<()>| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                work().expect("the operation");
                backend.sync().expect("the device");
            });
        });
    };
    let space = tensor(&[1 << 20]);
    let (x, y, dy, dx) = (tensor(&[T, H]), tensor(&[T, H]), tensor(&[T, H]), tensor(&[T, H]));
    let (gamma, beta, dgamma, dbeta) = (tensor(&[H]), tensor(&[H]), tensor(&[H]), tensor(&[H]));
    let (mean, rstd) = (tensor(&[T]), tensor(&[T]));
    bench("layernorm", &|| {
        backend.layernorm(LayerNorm {
            x: x.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            eps: 1e-5,
            y: y.view(),
            mean: mean.view(),
            rstd: rstd.view(),
        })
    });
    bench("layernorm_backward", &|| {
        backend.layernorm_backward(LayerNormBackward {
            x: x.view(),
            gamma: gamma.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dy: dy.view(),
            dx: dx.view(),
            accumulate: true,
            dgamma: dgamma.view(),
            dbeta: dbeta.view(),
            workspace: space.view(),
        })
    });
    let (wide, bias, dbias, wide_y) =
        (tensor(&[T, 4 * H]), tensor(&[4 * H]), tensor(&[4 * H]), tensor(&[T, 4 * H]));
    bench("bias_gelu", &|| {
        backend.bias_gelu(BiasGelu { x: wide.view(), bias: bias.view(), y: wide_y.view() })
    });
    bench("bias_backward", &|| {
        let (dy, dbias) = (wide.view(), dbias.view());
        backend.bias_backward(BiasBackward { dy, dbias, workspace: space.view() })
    });
    let d = H / A;
    let (qkv, dqkv) = (tensor(&[B, S, A, 3, d]), tensor(&[B, S, A, 3, d]));
    let (out, dout, lse) = (tensor(&[B, S, A, d]), tensor(&[B, S, A, d]), tensor(&[B, A, S]));
    let stream = Stream { seed: 1, stream: 2 };
    let dropped = AttentionDropout { p: 0.1, stream, first_sample: 0, first_head: 0, heads: A };
    for (name, dropout) in [("", None), (" with dropout", Some(dropped))] {
        let scale = 1.0 / (d as f32).sqrt();
        bench(&format!("attention{name}"), &|| {
            backend.attention(Attention {
                qkv: qkv.view(),
                out: out.view(),
                lse: lse.view(),
                scale,
                dropout,
                workspace: space.view(),
            })
        });
        bench(&format!("attention_backward{name}"), &|| {
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
        });
    }
    let tokens = backend.alloc(Class::Activations, DType::U32, Shape::new(&[T])).expect("memory");
    let ids: Vec<u32> =
        (0..T as u64).map(|i| (stream.uniform(i).powi(3) * V as f32) as u32 % V as u32).collect();
    backend.write(tokens.view(), bytemuck::cast_slice(&ids)).expect("a write");
    let (table, dtable, logits) = (tensor(&[V, H]), tensor(&[V, H]), tensor(&[T, V]));
    bench("embedding", &|| {
        backend.embedding(Embedding { tokens: tokens.view(), table: table.view(), first_row: 0, y: y.view() })
    });
    assert!(backend.workspace(Scratch::EmbeddingBackward { t: T, v: V, h: H }) <= space.len());
    bench("embedding_backward", &|| {
        backend.embedding_backward(EmbeddingBackward {
            tokens: tokens.view(),
            dy: dy.view(),
            first_row: 0,
            dtable: dtable.view(),
            workspace: space.view(),
        })
    });
    let (max, sum_exp, target) = (tensor(&[T]), tensor(&[T]), tensor(&[T]));
    bench("cross_entropy_max", &|| {
        backend.cross_entropy_max(CrossEntropyMax { logits: logits.view(), max: max.view() })
    });
    bench("cross_entropy_sums", &|| {
        backend.cross_entropy_sums(CrossEntropySums {
            logits: logits.view(),
            targets: tokens.view(),
            first_column: 0,
            max: max.view(),
            sum_exp: sum_exp.view(),
            target: target.view(),
        })
    });
    bench("cross_entropy_backward", &|| {
        backend.cross_entropy_backward(CrossEntropyBackward {
            logits: logits.view(),
            targets: tokens.view(),
            first_column: 0,
            max: max.view(),
            sum_exp: sum_exp.view(),
            scale: 1e-3,
            dlogits: logits.view(),
        })
    });
    let [param, grad, m, v] = [0; 4].map(|_| tensor(&[PARAMETERS]));
    bench("adamw", &|| {
        backend.adamw(AdamW {
            param: param.view(),
            grad: grad.view(),
            m: m.view(),
            v: v.view(),
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_scale: 1.0,
            step: 1,
        })
    });
    const BLOCK: usize = 1 << 16;
    let squares = tensor(&[PARAMETERS.div_ceil(BLOCK)]);
    bench("block_squares", &|| {
        backend.block_squares(BlockSquares { x: grad.view(), out: squares.view(), block: BLOCK })
    });
    bench("fill", &|| backend.fill(grad.view(), 0.0));
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
