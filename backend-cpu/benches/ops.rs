//! Each operation at the shapes of preset `laptop`, batch 8: bytes it must move, or multiply-adds twice, a second.
//!
//! `cargo bench -p backend-cpu --bench ops -- [filter]`

mod common;

use std::time::Duration;

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionDropout, BiasAdd, BiasBackward, BiasDropoutResidual,
    BiasGelu, BlockSquares, CrossEntropyBackward, CrossEntropyMax, CrossEntropySums, Dropout, DropoutMask,
    Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, MatmulBias,
    MatmulBiasGelu, Scratch,
};
use backend::philox::Stream;
use backend::{Backend, DType, ReduceOp, Result};
use backend_cpu::CpuBackend;
use common::{A, B, D, H, Rig, S, T, V};
use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rig = Rig { cpu: CpuBackend::new(cores) };
    let cpu = &*rig.cpu;
    let mut group = criterion.benchmark_group("ops");
    let mut bytes = |name: &str, floats: usize, work: &dyn Fn() -> Result<()>| {
        group.throughput(Throughput::Bytes(4 * floats as u64));
        group.bench_function(name, |bench| bench.iter(|| work().expect("the arguments fit")));
    };
    let f = |extents: &[usize]| rig.floats(extents);
    let (n, wide) = (T * H, T * 4 * H);
    let (x, y, z, other) = (f(&[T, H]), f(&[T, H]), f(&[T, H]), f(&[T, H]));
    let (pre, active, grad) = (f(&[T, 4 * H]), f(&[T, 4 * H]), f(&[T, 4 * H]));
    let (bias, wide_bias, mean, rstd) = (f(&[H]), f(&[4 * H]), f(&[T]), f(&[T]));
    let (gamma, beta, dgamma, dbeta) = (f(&[H]), f(&[H]), f(&[H]), f(&[H]));
    let (x, y, z, other) = (x.view(), y.view(), z.view(), other.view());
    let (pre, active, grad) = (pre.view(), active.view(), grad.view());
    let (bias, wide_bias, mean, rstd) = (bias.view(), wide_bias.view(), mean.view(), rstd.view());
    let (gamma, beta, dgamma, dbeta) = (gamma.view(), beta.view(), dgamma.view(), dbeta.view());
    let scratch = [
        Scratch::LayerNormBackward { t: T, h: H },
        Scratch::BiasBackward { t: T, n: 4 * H },
        Scratch::Attention { b: B, s: S, a: A, d: D },
        Scratch::AttentionBackward { b: B, s: S, a: A, d: D },
        Scratch::Sum { n: V * H },
    ];
    let workspace = f(&[scratch.map(|s| cpu.workspace(s)).into_iter().max().unwrap_or(0)]);
    let workspace = workspace.view();

    bytes("fill", n, &|| cpu.fill(x, 0.5));
    bytes("copy", 2 * n, &|| cpu.copy(x, y));
    bytes("scale", 2 * n, &|| cpu.scale(x, 1.0));
    bytes("add", 3 * n, &|| cpu.add(Add { x, y, alpha: 0.0 }));
    bytes("reduce 4", 8 * n, &|| cpu.reduce(ReduceOp::Max, &[x, y, z, other], &[x, y, z, other]));
    bytes("bias_add", 2 * n, &|| cpu.bias_add(BiasAdd { x, bias }));
    bytes("bias_backward", wide, &|| {
        cpu.bias_backward(BiasBackward { dy: pre, dbias: wide_bias, workspace })
    });
    bytes("gelu", 2 * wide, &|| cpu.gelu(Gelu { x: pre, y: active }));
    bytes("bias_gelu", 3 * wide, &|| cpu.bias_gelu(BiasGelu { x: pre, bias: wide_bias, y: active }));
    bytes("gelu_backward", 3 * wide, &|| cpu.gelu_backward(GeluBackward { x: active, dy: grad, dx: grad }));
    for (dtype, size) in [(DType::Bf16, 2), (DType::F16, 2)] {
        let narrow = |extents: &[usize]| rig.cast(&f(extents), dtype);
        let (x, y, pre, active) =
            (narrow(&[T, H]), narrow(&[T, H]), narrow(&[T, 4 * H]), narrow(&[T, 4 * H]));
        let (x, y, pre, active) = (x.view(), y.view(), pre.view(), active.view());
        // Throughput is of bytes: half as many an element.
        bytes(&format!("add {dtype}"), 3 * n * size / 4, &|| cpu.add(Add { x, y, alpha: 0.0 }));
        bytes(&format!("gelu {dtype}"), 2 * wide * size / 4, &|| cpu.gelu(Gelu { x: pre, y: active }));
    }
    let mask = DropoutMask { p: 0.1, stream: Stream { seed: 1, stream: 2 }, first: 0 };
    bytes("dropout", 2 * n, &|| cpu.dropout(Dropout { x, y, mask }));
    for (name, mask) in [("bias_dropout_residual p=0", None), ("bias_dropout_residual p=0.1", Some(mask))] {
        bytes(name, 3 * n, &|| {
            cpu.bias_dropout_residual(BiasDropoutResidual { x, bias, residual: y, y: z, mask })
        });
    }
    bytes("layernorm", 2 * n, &|| cpu.layernorm(LayerNorm { x, gamma, beta, eps: 1e-5, y, mean, rstd }));
    bytes("layernorm_backward", 4 * n, &|| {
        let (dy, dx, accumulate) = (y, z, true);
        cpu.layernorm_backward(LayerNormBackward {
            x,
            gamma,
            mean,
            rstd,
            dy,
            dx,
            accumulate,
            dgamma,
            dbeta,
            workspace,
        })
    });
    let (table, tokens) = (f(&[V, H]), rig.tokens(T));
    let (table, tokens) = (table.view(), tokens.view());
    bytes("embedding", 2 * n, &|| cpu.embedding(Embedding { tokens, table, first_row: 0, y }));
    bytes("embedding_backward", 3 * n, &|| {
        cpu.embedding_backward(EmbeddingBackward { tokens, dy: y, first_row: 0, dtable: table, workspace })
    });
    let (logits, max, sum_exp, target) = (f(&[T, V]), f(&[T]), f(&[T]), f(&[T]));
    let (logits, max, sum_exp, target) = (logits.view(), max.view(), sum_exp.view(), target.view());
    bytes("cross_entropy_max", T * V, &|| cpu.cross_entropy_max(CrossEntropyMax { logits, max }));
    bytes("cross_entropy_sums", T * V, &|| {
        let sums = CrossEntropySums { logits, targets: tokens, first_column: 0, max, sum_exp, target };
        cpu.cross_entropy_sums(sums)
    });
    let dlogits = f(&[T, V]);
    bytes("cross_entropy_backward", 2 * T * V, &|| {
        let (targets, dlogits) = (tokens, dlogits.view());
        let scale = 1.0;
        cpu.cross_entropy_backward(CrossEntropyBackward {
            logits,
            targets,
            first_column: 0,
            max,
            sum_exp,
            scale,
            dlogits,
        })
    });
    let [param, m, v] = [(); 3].map(|()| f(&[V * H]));
    cpu.fill(v.view(), 0.1).expect("f32");
    bytes("adamw", 7 * V * H, &|| {
        let (param, grad, m, v) = (param.view(), table.reshape([V * H])?, m.view(), v.view());
        let (lr, beta1, beta2, eps, weight_decay, grad_scale) = (1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0);
        cpu.adamw(AdamW { param, grad, m, v, lr, beta1, beta2, eps, weight_decay, grad_scale, step: 9 })
    });
    const BLOCK: usize = 65_536;
    let norms = f(&[(V * H).div_ceil(BLOCK)]);
    bytes("block_squares", V * H, &|| {
        cpu.block_squares(BlockSquares { x: table, out: norms.view(), block: BLOCK })
    });

    let mut flops = |name: &str, flops: usize, work: &dyn Fn() -> Result<()>| {
        group.throughput(Throughput::Elements(flops as u64));
        group.bench_function(name, |bench| bench.iter(|| work().expect("the arguments fit")));
    };
    let w = f(&[4 * H, H]);
    flops("matmul_bias", 2 * wide * H, &|| {
        cpu.matmul_bias(MatmulBias { x, w: w.view(), bias: wide_bias, y: pre })
    });
    flops("matmul_bias_gelu", 2 * wide * H, &|| {
        cpu.matmul_bias_gelu(MatmulBiasGelu { x, w: w.view(), bias: wide_bias, pre, y: active })
    });
    let [qkv, dqkv] = [(); 2].map(|()| f(&[B, S, A, 3, D]));
    let [out, dout] = [(); 2].map(|()| f(&[B, S, A, D]));
    let lse = f(&[B, A, S]);
    let (qkv, dqkv, out, dout, lse) = (qkv.view(), dqkv.view(), out.view(), dout.view(), lse.view());
    // A product with the scores, of the pairs that causality leaves.
    let product = 2 * B * A * D * S * (S + 1) / 2;
    let dropout = AttentionDropout { p: 0.1, stream: mask.stream, first_sample: 0, first_head: 0, heads: A };
    for (name, dropout) in [("p=0", None), ("p=0.1", Some(dropout))] {
        flops(&format!("attention {name}"), 2 * product, &|| {
            cpu.attention(Attention { qkv, out, lse, scale: 0.17, dropout, workspace })
        });
        flops(&format!("attention_backward {name}"), 5 * product, &|| {
            cpu.attention_backward(AttentionBackward {
                qkv,
                out,
                lse,
                dout,
                dqkv,
                scale: 0.17,
                dropout,
                workspace,
            })
        });
    }
    group.finish();
    criterion.final_summary();
}
